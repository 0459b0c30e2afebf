namespace Vmm.Daemon.Vms;

/// <summary>Commands of a VM that take turns. Stops do not: see <see cref="VmOperations"/>.</summary>
internal enum VmOperation
{
    /// <summary>An adopted worker is asked what it has; a start that was cut off is finished.</summary>
    Adopt,

    /// <summary>A worker is started and builds the VM.</summary>
    Start,

    /// <summary>The vCPUs are stopped.</summary>
    Pause,

    /// <summary>The vCPUs go on.</summary>
    Resume,

    /// <summary>The VM is written into a folder.</summary>
    Save,

    /// <summary>Where it is saved is forgotten.</summary>
    DiscardSaved,

    /// <summary>The VM moves to another worker of this host.</summary>
    Upgrade,

    /// <summary>The VM moves to another host, or comes from one.</summary>
    Migrate,

    /// <summary>The power button is pressed, also as the first part of a graceful stop.</summary>
    PowerButton,

    /// <summary>A sleeping guest is woken.</summary>
    Wake,

    /// <summary>The stored spec is replaced.</summary>
    ReplaceSpec,

    /// <summary>The record is removed.</summary>
    Delete,

    /// <summary>A device is plugged in, stored, or both.</summary>
    AttachDevice,

    /// <summary>A device is taken out of the stored spec.</summary>
    ForgetDevice,

    /// <summary>A disk grows.</summary>
    ResizeDisk,

    /// <summary>A disk begins to be copied to another storage.</summary>
    BeginDiskCopy,

    /// <summary>The VM goes over to the copy of a disk.</summary>
    FinishDiskCopy,

    /// <summary>Change logs of disks begin or end.</summary>
    LogChanges,

    /// <summary>Disks get differencing disks.</summary>
    Snapshot,

    /// <summary>The disks of a VM that is off are read for a point of its replica.</summary>
    Cut,

    /// <summary>A disk begins to be streamed.</summary>
    BeginDiskStream,

    /// <summary>The VM goes on with fewer images of a disk.</summary>
    FinishDiskStream,

    /// <summary>A disk begins to be committed into an image of its chain.</summary>
    BeginDiskCommit,

    /// <summary>The VM goes over to the image that got its disk's content.</summary>
    FinishDiskCommit,

    /// <summary>The VM's time on host CPUs is changed.</summary>
    LimitCpu,

    /// <summary>The VM's resident limit is changed.</summary>
    LimitMemory,

    /// <summary>A stop waits for the end of the start that it cancelled.</summary>
    AwaitCancelledStart,
}

/// <summary>
/// Operations of one VM, one after the other. What a stop does to each:
/// <list type="table">
/// <item><term>start, and the start that an adoption finishes</term><description>is cancelled; the stop waits until it has cleaned
/// up</description></item>
/// <item><term>a save, or a move</term><description>is not waited for either, and nobody waits for it: other operations are refused
/// meanwhile</description></item>
/// <item><term>any other operation</term><description>is not waited for: the plug is pulled at once, and the operation meets a worker that
/// is gone</description></item>
/// <item><term>the wait of a graceful stop, of a removal, of a memory change, of a vnode's move, of a disk's
/// copy, stream or commit</term><description>has no turn: any
/// command, and the plug, goes beside it</description></item>
/// </list>
/// Once this is closed, those that wait are answered with the reason instead.
/// </summary>
// Its semaphore is not disposed: it has no handle as long as nobody asks for one, and commands may still wait when the VM is gone.
#pragma warning disable CA1001
internal sealed class VmOperations
#pragma warning restore CA1001
{
    private static readonly TimeSpan s_longestWait = TimeSpan.FromSeconds(60);

    private readonly SemaphoreSlim _free = new(1, 1);
    private volatile ApiException? _closed;
    private volatile Turn? _current;

    /// <summary>The operation that goes on; null when none does.</summary>
    internal VmOperation? Current => _current?.Operation;

    /// <summary>Carries out one operation when its turn comes.</summary>
    /// <exception cref="ApiException">This is closed, or another operation has been going on for a minute.</exception>
    internal async Task RunAsync(VmOperation operation, string vm, Func<Task> carryOut, CancellationToken cancellation)
    {
        ThrowIfClosed();
        ThrowIfLeaving(vm);
        if (!await _free.WaitAsync(s_longestWait, cancellation).ConfigureAwait(false))
        {
            string current = Current is { } going ? $" ({going})" : "";
            throw new ApiException(409, "vm-busy", "another command is being carried out",
                $"{vm}: another command{current} has been running for a minute: try again later");
        }

        await TakeTurnAsync(operation, carryOut).ConfigureAwait(false);
    }

    /// <summary>Carries out one operation now, or not at all.</summary>
    /// <exception cref="ApiException">This is closed, or another operation goes on.</exception>
    internal async Task TryRunAsync(VmOperation operation, string vm, Func<Task> carryOut, CancellationToken cancellation)
    {
        ThrowIfClosed();
        if (!await _free.WaitAsync(TimeSpan.Zero, cancellation).ConfigureAwait(false))
        {
            throw new ApiException(409, "vm-busy", "another command is being carried out", $"{vm}: another command is being carried out");
        }

        await TakeTurnAsync(operation, carryOut).ConfigureAwait(false);
    }

    private async Task TakeTurnAsync(VmOperation operation, Func<Task> carryOut)
    {
        try
        {
            ThrowIfClosed();
            _current = new Turn(operation);
            await carryOut().ConfigureAwait(false);
        }
        finally
        {
            _current = null;
            _free.Release();
        }
    }

    /// <summary>For commands that take no turn, and must not meet a save or a move.</summary>
    /// <exception cref="ApiException">The VM is being saved, or moves.</exception>
    internal void ThrowIfLeaving(string vm)
    {
        string? what = Current switch
        {
            VmOperation.Save => "is being saved",
            VmOperation.Upgrade => "is being moved to a new worker",
            VmOperation.Migrate => "is being moved from host to host",
            _ => null,
        };
        if (what is not null)
        {
            throw new ApiException(
                409, "vm-busy", $"the VM {what}",
                $"{vm} {what}: wait for the job or cancel it; 'vmmctl vm stop {vm}' ends the VM");
        }
    }

    /// <summary>No operation begins from here on. The first reason stands.</summary>
    internal void Close(ApiException why) => Interlocked.CompareExchange(ref _closed, why, null);

    /// <summary>For commands that take no turn.</summary>
    /// <exception cref="ApiException">This is closed.</exception>
    internal void ThrowIfClosed()
    {
        // A new one for each: an exception that is thrown twice mixes up its stack traces.
        if (_closed is { Problem: { } why })
        {
            throw new ApiException(why.Status, why.Code, why.Title, why.Detail);
        }
    }

    private sealed record Turn(VmOperation Operation);
}
