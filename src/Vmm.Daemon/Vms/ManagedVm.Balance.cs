using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>A running VM as the balancer needs it.</summary>
/// <param name="Vm">Its name.</param>
/// <param name="Spec">Its spec.</param>
/// <param name="Memory">Its vnodes.</param>
/// <param name="HostNodes">The host node of each vnode that has exactly one.</param>
/// <param name="Pinned">Vnodes that somebody gave a size.</param>
internal sealed record BalancerReading(string Vm, VmSpec Spec, VmMemory Memory, IReadOnlyDictionary<int, int> HostNodes, IReadOnlySet<int> Pinned);

/// <content>What the balancer asks and says.</content>
public sealed partial class ManagedVm
{
    /// <summary>Vnodes whose size somebody gave while the VM runs. Under the gate.</summary>
    private readonly HashSet<int> _pinned = [];

    /// <summary>Null when it does not run, or does not answer.</summary>
    internal async Task<BalancerReading?> ReadAsync(CancellationToken cancellation)
    {
        (IWorker? worker, VmSpec? spec) = Now();
        if (worker is null || spec is null || worker.State != WorkerState.Running)
        {
            return null;
        }

        try
        {
            VmMemory memory = await worker.MemoryAsync(null, cancellation).ConfigureAwait(false);
            WorkerNuma numa = await worker.NumaAsync(cancellation).ConfigureAwait(false);
            lock (_gate)
            {
                if (!Plausible(memory, spec) || !numa.Vnodes.All(v => v.Vnode < spec.EffectiveVnodes.Count))
                {
                    return null; // a worker that lies about what it has is left out; the others are balanced all the same
                }

                return new BalancerReading(_record.Name, spec, memory, numa.Vnodes.Where(v => v.HostNodes.Count == 1).ToDictionary(v => v.Vnode, v => v.HostNodes[0]), new HashSet<int>(_pinned));
            }
        }
        catch (Exception e) when (e is WorkerException or OperationCanceledException)
        {
            return null;
        }
    }

    // Exactly the vnodes of the spec, none with more than the spec lets it have.
    private static bool Plausible(VmMemory memory, VmSpec spec)
    {
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        return memory.Vnodes.Count == vnodes.Count && memory.Vnodes.All(v => v.Vnode < vnodes.Count
            && v.MostBytes <= Math.Max(vnodes[v.Vnode].Memory, vnodes[v.Vnode].MaxMemory ?? default));
    }

    /// <summary>Passes a target on to the guest, unless somebody gave the vnode a size meanwhile.</summary>
    /// <exception cref="ApiException">It does not run, or cannot have it.</exception>
    internal async Task BalanceAsync(int vnode, ulong bytes, string reason, CancellationToken cancellation)
    {
        IWorker worker = Alive();
        lock (_gate)
        {
            if (_pinned.Contains(vnode))
            {
                throw WrongState($"has a size that somebody gave vnode {vnode}");
            }
        }

        MemoryWish wish = Now().Spec is { BalancedByBalloon: true } spec ? new MemoryWish(BalloonBytes: spec.Memory - Math.Min(bytes, spec.Memory)) : new MemoryWish(vnode, bytes);
        await Call(() => worker.MemoryAsync(wish, cancellation)).ConfigureAwait(false);
        _events.Publish("balanced", Record.Name, message: $"vnode {vnode}: {reason}");
    }

    /// <summary>Remembers that a size was given, or that the balancer may decide again.</summary>
    private void Pin(MemoryWish wish)
    {
        lock (_gate)
        {
            if (wish.Auto == true)
            {
                _pinned.Remove(wish.Vnode ?? 0);
            }
            else if (wish.Bytes is not null || (wish.BalloonBytes is not null && _spec is { BalancedByBalloon: true }))
            {
                _pinned.Add(wish.Vnode ?? 0);
            }
        }
    }
}
