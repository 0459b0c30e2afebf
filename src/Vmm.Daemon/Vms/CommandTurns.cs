namespace Vmm.Daemon.Vms;

/// <summary>Commands of one VM, one after the other. Once it is closed, those that wait are answered with the reason instead.</summary>
#pragma warning disable CA1001 // Its semaphore is not disposed: it has no handle as long as nobody asks for one, and commands may still wait when the VM is gone.
internal sealed class CommandTurns
#pragma warning restore CA1001
{
    private static readonly TimeSpan s_longest = TimeSpan.FromSeconds(60);

    private readonly SemaphoreSlim _free = new(1, 1);
    private volatile ApiException? _closed;

    /// <summary>Waits for its turn; dispose the answer to end it.</summary>
    /// <exception cref="ApiException">The turns are closed, or another command has been going on for a minute.</exception>
    internal async Task<IDisposable> TakeAsync(string vm, CancellationToken cancellation)
    {
        ThrowIfClosed();
        if (!await _free.WaitAsync(s_longest, cancellation).ConfigureAwait(false))
        {
            throw new ApiException(409, "vm-busy", "another command is being carried out", $"{vm}: another command has been running for a minute: try again later");
        }

        if (_closed is null)
        {
            return new Turn(_free);
        }

        _free.Release();
        throw Closed();
    }

    /// <summary>No command begins from here on. The first reason stands.</summary>
    internal void Close(ApiException why) => Interlocked.CompareExchange(ref _closed, why, null);

    /// <summary>For commands that take no turn.</summary>
    /// <exception cref="ApiException">The turns are closed.</exception>
    internal void ThrowIfClosed()
    {
        if (_closed is not null)
        {
            throw Closed();
        }
    }

    // A new one for each: an exception that is thrown twice mixes up its stack traces.
    private ApiException Closed()
    {
        Contracts.Rest.Problem why = _closed!.Problem;
        return new ApiException(why.Status, why.Code, why.Title, why.Detail);
    }

    private sealed class Turn(SemaphoreSlim free) : IDisposable
    {
        private int _ended;

        public void Dispose()
        {
            if (Interlocked.Exchange(ref _ended, 1) == 0)
            {
                free.Release();
            }
        }
    }
}
