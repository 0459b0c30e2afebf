using System.Threading.Channels;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>Wakes one loop. Signals that come before it waits are one.</summary>
internal sealed class Signal
{
    private readonly Channel<bool> _set = Channel.CreateBounded<bool>(1);

    /// <summary>Wakes it, now or when it waits next.</summary>
    internal void Set() => _set.Writer.TryWrite(true);

    /// <summary>Waits for a signal.</summary>
    /// <param name="longest">How long at most.</param>
    /// <param name="time">The clock.</param>
    /// <param name="cancellation">Gives up.</param>
    internal async Task WaitAsync(TimeSpan longest, TimeProvider time, CancellationToken cancellation)
    {
        if (_set.Reader.TryRead(out _) || longest <= TimeSpan.Zero)
        {
            cancellation.ThrowIfCancellationRequested();
            return;
        }

        using CancellationTokenSource either = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        Task<bool> signal = _set.Reader.WaitToReadAsync(either.Token).AsTask();
        await Task.WhenAny(signal, Task.Delay(longest, time, either.Token)).ConfigureAwait(false);
        await either.CancelAsync().ConfigureAwait(false);
        _ = _set.Reader.TryRead(out _);
        cancellation.ThrowIfCancellationRequested();
    }
}
