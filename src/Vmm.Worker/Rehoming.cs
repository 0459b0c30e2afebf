using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Machine.Run;
using Vmm.Memory;

namespace Vmm.Worker;

/// <summary>
/// Moves vnodes of the machine on a thread of its own, one at a time, and tells how far it is: control requests go on meanwhile.
/// </summary>
internal sealed class Rehoming(VirtualMachine machine) : IDisposable
{
    private readonly Lock _gate = new();
    private CancellationTokenSource? _cancel;
    private Thread? _thread;
    private RehomeStatus? _status;

    /// <summary>The move that goes on, or the last one.</summary>
    internal RehomeStatus? Status => Volatile.Read(ref _status);

    /// <summary>Begins a move.</summary>
    /// <exception cref="RequestException">One goes on already, or the wish makes no sense.</exception>
    internal void Start(RehomeBody wish)
    {
        int vnodes = machine.Homes.Count;
        if (wish.Vnode < 0 || wish.Vnode >= vnodes || wish.HostNodes.Count == 0
            || wish.HostNodes.Concat(wish.HostCpus).Any(n => n is < 0 or >= 65536) || wish.BytesPerSecond == 0)
        {
            throw new RequestException(ControlCodes.RehomeImpossible, wish.Vnode < 0 || wish.Vnode >= vnodes
                ? $"there is no vnode {wish.Vnode}: the VM has {vnodes} (0-{vnodes - 1})"
                : "host nodes, CPUs or rate are out of range");
        }

        lock (_gate)
        {
            if (_status is { State: RehomeState.Running } going)
            {
                throw new RequestException(ControlCodes.RehomeRunning,
                    $"vnode {going.Vnode} is being moved to host nodes {NumberSet.Format(going.HostNodes)}: wait for it or cancel it");
            }

            Join();
            _cancel = new CancellationTokenSource();
            CancellationToken cancel = _cancel.Token;
            Volatile.Write(ref _status, new RehomeStatus(wish.Vnode, wish.HostNodes, RehomeState.Running, 0, 0, [], 0));
            Thread thread = new(() => Run(wish, cancel), maxStackSize: 256 * 1024) { Name = "rehome", IsBackground = true };
            thread.Start();
            _thread = thread; // once it runs: it is joined
        }
    }

    /// <summary>Asks the move that goes on to stop; without one nothing happens.</summary>
    internal void Cancel()
    {
        lock (_gate)
        {
            _cancel?.Cancel();
        }
    }

    /// <summary>Stops the move that goes on and waits for it.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _cancel?.Cancel();
            Join();
        }
    }

    private void Join()
    {
        _thread?.Join();
        _cancel?.Dispose();
        (_thread, _cancel) = (null, null);
    }

    private void Run(RehomeBody wish, CancellationToken cancel)
    {
        RehomeStatus status = Status!;
        try
        {
            PageMigrationResult result = machine.Rehome(wish.Vnode, wish.HostNodes, wish.HostCpus, wish.BytesPerSecond,
                (progress, moved) => Volatile.Write(ref _status, status = status with { Progress = progress, MovedBytes = moved }), cancel);
            status = status with
            {
                State = result.Cancelled ? RehomeState.Cancelled : RehomeState.Done,
                Progress = result.Cancelled ? status.Progress : 1,
                MovedBytes = result.Moved,
                Left = [.. result.Left.OrderBy(l => l.Key).Select(l => new NodeBytes(l.Key, l.Value))],
                Milliseconds = (long)result.Elapsed.TotalMilliseconds,
            };
        }
#pragma warning disable CA1031 // A move that fails says so; the VM goes on.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            status = status with
            {
                State = RehomeState.Failed,
                Message = cause is KernelException or RehomeException ? cause.Message : $"{cause.GetType().Name}: {cause.Message}"
            };
        }

        Volatile.Write(ref _status, status);
    }
}
