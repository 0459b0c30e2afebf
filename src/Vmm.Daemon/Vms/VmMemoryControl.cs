using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Memory;
using Vmm.Spec;
using static Vmm.Daemon.Vms.WorkerCalls;

namespace Vmm.Daemon.Vms;

/// <summary>A running VM as the balancer needs it.</summary>
/// <param name="Vm">Its name.</param>
/// <param name="Spec">Its spec.</param>
/// <param name="Memory">Its vnodes.</param>
/// <param name="HostNodes">The host node of each vnode that has exactly one.</param>
/// <param name="Pinned">Vnodes that somebody gave a size.</param>
internal sealed record BalancerReading(
    string Vm, VmSpec Spec, VmMemory Memory, IReadOnlyDictionary<int, int> HostNodes, IReadOnlySet<int> Pinned);

/// <summary>The memory of a running VM: what somebody, or the balancer, gives it.</summary>
/// <param name="vm">The VM.</param>
/// <param name="limit">Its resident limit.</param>
// Its semaphore is not disposed: it has no handle as long as nobody asks for one, and commands may still wait when the VM is gone.
#pragma warning disable CA1001
internal sealed class VmMemoryControl(VmSupervisor vm, VmResidentLimit limit) : IRunObserver
#pragma warning restore CA1001
{
    /// <summary>Sizes of balloons are given one after the other: the pressure loop looks and changes in one turn.</summary>
    private readonly SemaphoreSlim _balloon = new(1, 1);

    /// <summary>Vnodes whose size somebody gave while the VM runs. Also the lock.</summary>
    private readonly HashSet<int> _pinned = [];

    public void RunBegan(IWorker worker)
    {
    }

    public void RunEnded()
    {
        lock (_pinned)
        {
            _pinned.Clear();
        }
    }

    /// <summary>
    /// What the guest says of its memory is as new as its last answer: one that is old is asked for again, and waited for a moment.
    /// </summary>
    /// <exception cref="ApiException">It does not run, or does not answer.</exception>
    internal async Task<VmMemory> ReadAsync(CancellationToken cancellation)
    {
        IWorker worker = vm.RequireWorker();
        VmMemory memory = await CallAsync(() => worker.MemoryAsync(null, cancellation)).ConfigureAwait(false);
        for (int i = 0; i < 4 && memory.Balloon is { SaidMsAgo: > 1000 }; i++)
        {
            await Task.Delay(50, cancellation).ConfigureAwait(false);
            memory = await CallAsync(() => worker.MemoryAsync(null, cancellation)).ConfigureAwait(false);
        }

        return Describe(memory);
    }

    private VmMemory Describe(VmMemory memory) => memory with { Paging = limit.Describe(memory.Paging) };

    /// <summary>
    /// Passes a change on and waits until the guest carried it out, or the time is over: the answer says how far it came.
    /// </summary>
    /// <exception cref="ApiException">It does not run, or cannot have it.</exception>
    internal async Task<VmMemory> ChangeAsync(MemoryWish change, TimeSpan patience, CancellationToken cancellation)
    {
        vm.Operations.ThrowIfLeaving(vm.Name);
        IWorker worker = vm.RequireWorker();
        if (change is { Auto: true, Bytes: not null })
        {
            throw new ApiException(422, ControlCodes.MemoryImpossible, "a size or automatic",
                $"{vm.Name}: a vnode has either the size it is given, or the one the balancer gives it");
        }

        MemoryWish? asked = change.Bytes is null && change.BalloonBytes is null ? null : change with { Auto = null };
        VmMemory memory = await AskAsync(worker, asked, cancellation).ConfigureAwait(false);
        if (change.Auto == true && memory.Vnodes.FirstOrDefault(v => v.Vnode == (change.Vnode ?? 0)) is { BelowBytes: > 0 } below)
        {
            // The balancer keeps to minMemory: what a size put below it ends with the size.
            memory = await CallAsync(
                () => worker.MemoryAsync(new MemoryWish(below.Vnode, below.LeastBytes), cancellation)).ConfigureAwait(false);
        }

        Pin(change); // only what the worker did not refuse
        long begin = Environment.TickCount64;
        for (int delay = 5; !memory.Settled && Environment.TickCount64 - begin < patience.TotalMilliseconds;
            delay = Math.Min(delay * 2, 250))
        {
            await Task.Delay(delay, cancellation).ConfigureAwait(false);
            memory = await CallAsync(() => worker.MemoryAsync(null, cancellation)).ConfigureAwait(false);
        }

        string vnodes = string.Join(
            ", ", memory.Vnodes.Select(v => $"vnode {v.Vnode}: asked {new ByteSize(v.AskedBytes)}, has {new ByteSize(v.PresentBytes)}"));
        DaemonLog.MemoryChanged(vm.Log, vm.Name, memory.Settled ? "as asked" : "not as asked", vnodes);
        return Describe(memory);
    }

    private async Task<VmMemory> AskAsync(IWorker worker, MemoryWish? wish, CancellationToken cancellation)
    {
        if (wish?.BalloonBytes is null)
        {
            return await CallAsync(() => worker.MemoryAsync(wish, cancellation)).ConfigureAwait(false);
        }

        await _balloon.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            return await CallAsync(() => worker.MemoryAsync(wish, cancellation)).ConfigureAwait(false);
        }
        finally
        {
            _balloon.Release();
        }
    }

    /// <summary>Changes the size of the balloon for the pressure loop, unless somebody gave it one meanwhile.</summary>
    /// <param name="from">The size that it was asked to have when this was decided, bytes.</param>
    /// <param name="to">The size that it is asked to have, bytes.</param>
    /// <param name="reason">Why.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">It does not run, or somebody gave the balloon a size.</exception>
    internal async Task PressBalloonAsync(ulong from, ulong to, string reason, CancellationToken cancellation)
    {
        vm.Operations.ThrowIfLeaving(vm.Name);
        IWorker worker = vm.RequireWorker();
        await _balloon.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            VmMemory now = await CallAsync(() => worker.MemoryAsync(null, cancellation)).ConfigureAwait(false);
            if (now.Balloon is not { } balloon || balloon.TargetBytes != from || (from > 0 && balloon.Reason is null))
            {
                throw vm.WrongState("has a balloon that somebody gave a size");
            }

            MemoryWish wish = new(BalloonBytes: to, Reason: to == 0 ? null : reason);
            await CallAsync(() => worker.MemoryAsync(wish, cancellation)).ConfigureAwait(false);
        }
        finally
        {
            _balloon.Release();
        }
    }

    /// <summary>For the balancer and the pressure loop; null when it does not run, or does not answer.</summary>
    /// <param name="cancellation">Gives up.</param>
    /// <param name="evenPaused">Also one that is paused: its memory can be taken.</param>
    internal async Task<BalancerReading?> SampleAsync(CancellationToken cancellation, bool evenPaused = false)
    {
        IWorker? worker = vm.Worker;
        bool isUp = worker?.State is VmState.Running || (evenPaused && worker?.State is VmState.Paused);
        if (worker is null || !isUp || vm.Store.Spec is not { } spec)
        {
            return null;
        }

        try
        {
            VmMemory memory = await worker.MemoryAsync(null, cancellation).ConfigureAwait(false);
            WorkerNuma numa = await worker.NumaAsync(cancellation).ConfigureAwait(false);
            if (!IsPlausible(memory, spec) || !numa.Vnodes.All(v => v.Vnode < spec.EffectiveVnodes.Count))
            {
                return null; // a worker that lies about what it has is left out; the others are balanced all the same
            }

            Dictionary<int, int> nodes = numa.Vnodes.Where(v => v.HostNodes.Count == 1).ToDictionary(v => v.Vnode, v => v.HostNodes[0]);
            lock (_pinned)
            {
                return new BalancerReading(vm.Name, spec, memory, nodes, new HashSet<int>(_pinned));
            }
        }
        catch (Exception e) when (e is WorkerException or OperationCanceledException)
        {
            return null;
        }
    }

    /// <summary>Passes a target of the balancer on to the guest, unless somebody gave the vnode a size meanwhile.</summary>
    /// <exception cref="ApiException">It does not run, or cannot have it.</exception>
    internal async Task BalanceAsync(int vnode, ulong bytes, string reason, CancellationToken cancellation)
    {
        vm.Operations.ThrowIfLeaving(vm.Name);
        IWorker worker = vm.RequireWorker();
        lock (_pinned)
        {
            if (_pinned.Contains(vnode))
            {
                throw vm.WrongState($"has a size that somebody gave vnode {vnode}");
            }
        }

        MemoryWish target = vm.Store.Spec is { BalancedByBalloon: true } spec
            ? new MemoryWish(BalloonBytes: spec.Memory - Math.Min(bytes, spec.Memory))
            : new MemoryWish(vnode, bytes);
        await CallAsync(() => worker.MemoryAsync(target, cancellation)).ConfigureAwait(false);
        vm.Events.Publish("balanced", vm.Name, message: $"vnode {vnode}: {reason}");
    }

    // Exactly the vnodes of the spec, none with more than the spec lets it have.
    private static bool IsPlausible(VmMemory memory, VmSpec spec)
    {
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        return memory.Vnodes.Count == vnodes.Count && memory.Vnodes.All(v => v.Vnode < vnodes.Count
            && v.MostBytes <= Math.Max(vnodes[v.Vnode].Memory, vnodes[v.Vnode].MaxMemory ?? default));
    }

    /// <summary>Remembers that a size was given, or that the balancer may decide again.</summary>
    private void Pin(MemoryWish change)
    {
        bool given = change.Bytes is not null || (change.BalloonBytes is not null && vm.Store.Spec is { BalancedByBalloon: true });
        lock (_pinned)
        {
            if (change.Auto == true)
            {
                _pinned.Remove(change.Vnode ?? 0);
            }
            else if (given)
            {
                _pinned.Add(change.Vnode ?? 0);
            }
        }
    }
}
