using System.Runtime.CompilerServices;
using Vmm.Devices.Acpi;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Layout;
using Vmm.Machine.Numa;
using Vmm.Memory;
using Vmm.Placement;

namespace Vmm.Machine.Run;

/// <content>Where the vnodes live on the host, and moving them while the guest runs.</content>
public sealed partial class VirtualMachine
{
    private readonly List<MemoryOfVnode> _memories = [];
    private readonly Lock _homesLock = new();
    private VnodeHome[] _homes = [];
    private ThreadHomes? _places;
    private int _rehoming;

    /// <summary>Where each vnode lives now. Any thread.</summary>
    public IReadOnlyList<VnodeHome> Homes
    {
        get
        {
            lock (_homesLock)
            {
                return [.. _homes];
            }
        }
    }

    /// <summary>How the vnodes of a spec with <c>fit: best</c> were mapped onto this host; null for others.</summary>
    public NumaFitResult? Fit { get; private set; }

    /// <summary>The vCPU and I/O threads that run, with the vnode each belongs to; empty for a machine that does not keep track of them. Any thread.</summary>
    public IReadOnlyList<HomedThread> HomedThreads => _places?.Threads ?? [];

    /// <summary>
    /// Moves a vnode to other host nodes while the guest runs: from the first moment on new pages come from there, then those that exist are moved slice by
    /// slice, the memory that was plugged included, and at the end the vnode's threads go to its new CPUs. The policy stays of the kind it was (strict,
    /// preferred, interleave). When it is cancelled, or the kernel moves no pages at all, policy and threads are as before and pages that went stay where they
    /// are. Pages that could not be moved are told of; the vnode has its new home all the same.
    /// </summary>
    /// <remarks>The calling thread moves to <paramref name="hostCpus"/>, too: pages are copied by it.</remarks>
    /// <param name="vnode">Number of the vnode.</param>
    /// <param name="hostNodes">Where to.</param>
    /// <param name="hostCpus">CPUs of these nodes, for the vnode's threads; empty leaves threads where they are.</param>
    /// <param name="bytesPerSecond">How much is moved a second on average; null is as fast as it goes.</param>
    /// <param name="progress">Takes how much was looked at (0 to 1) and moved; null when nobody asks.</param>
    /// <param name="cancel">Stops it between two slices.</param>
    /// <exception cref="RehomeException">No such vnode, or another move is going on.</exception>
    /// <exception cref="KernelException">The kernel refused: no NUMA, no such node, CPUs that are not for this process.</exception>
    public PageMigrationResult Rehome(int vnode, IReadOnlyList<int> hostNodes, IReadOnlyList<int> hostCpus, ulong? bytesPerSecond, Action<double, ByteSize>? progress, CancellationToken cancel)
    {
        if (vnode < 0 || vnode >= _homes.Length)
        {
            throw new RehomeException($"there is no vnode {vnode}: {_spec.Name} has {_homes.Length} (0-{_homes.Length - 1})");
        }

        if (hostNodes.Count == 0 || _places is not { } places)
        {
            throw new RehomeException(hostNodes.Count == 0 ? "no host nodes are named" : $"{_spec.Name} runs without a place on the host and keeps no track of its threads");
        }

        if (Interlocked.Exchange(ref _rehoming, 1) != 0)
        {
            throw new RehomeException($"{_spec.Name}: a vnode is being moved already");
        }

        try
        {
            if (hostCpus.Count > 0)
            {
                ThreadPlacement.PinCurrent(hostCpus); // also the check that they can be had, before anything changes
            }

            VnodeHome old = Homes[vnode];
            MemoryPolicyMode mode = NumaPlacement.PolicyFor(old.Memory.Policy, hostNodes.Count);
            PageMigrationResult result = MovePages(vnode, mode, hostNodes, new PageMigrationOptions { BytesPerSecond = bytesPerSecond }, progress, cancel);
            if (!result.Cancelled)
            {
                lock (_homesLock)
                {
                    _homes[vnode] = new VnodeHome(old.Memory with { Policy = mode, HostNodes = hostNodes, Shares = null }, hostCpus.Count > 0 ? hostCpus : old.HostCpus);
                }

                places.Move(vnode, hostCpus.Count > 0 ? hostCpus : old.HostCpus);
            }

            return result;
        }
        finally
        {
            Volatile.Write(ref _rehoming, 0);
        }
    }

    private PageMigrationResult MovePages(int vnode, MemoryPolicyMode mode, IReadOnlyList<int> hostNodes, PageMigrationOptions options, Action<double, ByteSize>? progress, CancellationToken cancel)
    {
        List<VnodeMemory> memories = [.. _memories.Where(m => m.Vnode == vnode).Select(m => m.Memory)];
        VnodePlacement[] before = [.. memories.Select(m => m.Placement)];
        bool done = false;
        try
        {
            foreach (VnodeMemory memory in memories)
            {
                memory.SetPolicy(mode, hostNodes);
            }

            PageMigrationResult result = new PageMigration(memories, hostNodes, mode == MemoryPolicyMode.Interleave, options).Run(progress, cancel);
            done = !result.Cancelled;
            return result;
        }
        finally
        {
            for (int i = 0; i < memories.Count && !done; i++)
            {
                memories[i].Place(before[i]);
            }
        }
    }

    /// <summary>Remembers the homes. Only machines that have places, or whose threads somebody looks after, keep track of their threads: the usual start does not.</summary>
    private void Settle(IReadOnlyList<VnodeHome> homes)
    {
        _homes = new VnodeHome[homes.Count];
        bool placed = _resources.Threads is not null;
        for (int i = 0; i < _homes.Length; i++)
        {
            _homes[i] = homes[i];
            placed |= homes[i].HostCpus.Count > 0;
        }

        if (placed)
        {
            _places = MakePlaces();
        }
    }

    /// <summary>The threads of a device that names a vnode belong to it. One with kernel threads of its own (vhost-net) keeps those where the kernel has them.</summary>
    private void PlaceNear(string device, int? vnode)
    {
        if (vnode is { } near)
        {
            _places?.Tie(device, near);
        }
    }

    /// <summary>PCI devices of the start that name a vnode, for the guest's tables.</summary>
    private IReadOnlyList<AcpiInitiator> Initiators()
    {
        List<AcpiInitiator> initiators = [];
        foreach (Pluggable device in _devices)
        {
            if (device.Address is { } at && (device.DiskSpec?.Vnode ?? device.NetSpec?.Vnode) is { } vnode)
            {
                initiators.Add(new AcpiInitiator((byte)at.Bus, (byte)at.Slot, vnode));
            }
        }

        return initiators;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private ThreadHomes MakePlaces() => new(_resources.Threads, [.. _homes.Select(h => h.HostCpus)]);

    private IIoThreads? IoThreads => _places ?? (IIoThreads?)_resources.Threads;

    /// <summary>Keeps the memory until the machine is gone, and under the vnode it belongs to.</summary>
    private VnodeMemory Remember(int vnode, VnodeMemory memory)
    {
        _memories.Add(new MemoryOfVnode(vnode, memory));
        return Own(memory);
    }

    /// <summary>A class: a list of pairs would be compiled at every start.</summary>
    private sealed record MemoryOfVnode(int Vnode, VnodeMemory Memory);

    private Action? WhenVcpuStarts(int vnode) => _places is { } places ? () => places.VcpuReady(vnode) : null;
}

/// <summary>A vnode cannot be moved.</summary>
public sealed class RehomeException : Exception
{
    /// <summary>Creates the error.</summary>
    public RehomeException(string message) : base(message) { }
}
