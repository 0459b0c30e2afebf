using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Machine.Ram;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Placement;

namespace Vmm.Machine.Numa;

/// <summary>Where the vnodes live on the host, and moving them while the guest runs.</summary>
internal sealed class VnodeHomes
{
    private readonly string _name;
    private readonly MachineMemory _memory;
    private readonly ThreadHomes? _places;
    private readonly IMachineThreads? _threads;
    private VnodeHome[] _homes; // replaced whole by the one move that goes on
    private int _moving;

    /// <summary>Halts a move that goes on, and refuses new ones.</summary>
    internal MoveGate Gate { get; } = new();

    /// <summary>
    /// Remembers the homes. Only machines that have places, or whose threads somebody looks after, keep track of their threads: the usual
    /// start does not.
    /// </summary>
    /// <param name="name">The VM, for messages.</param>
    /// <param name="threads">Who starts threads; null: nobody.</param>
    /// <param name="homes">Where each vnode lives.</param>
    /// <param name="memory">The guest's memory.</param>
    internal VnodeHomes(string name, IMachineThreads? threads, IReadOnlyList<VnodeHome> homes, MachineMemory memory)
    {
        (_name, _threads, _memory) = (name, threads, memory);
        _homes = [.. homes];
        if (threads is not null || Array.Exists(_homes, home => home.HostCpus.Count > 0))
        {
            _places = new ThreadHomes(threads, [.. _homes.Select(home => home.HostCpus)]);
        }
    }

    /// <summary>Where each vnode lives now. Any thread.</summary>
    internal IReadOnlyList<VnodeHome> Homes => Volatile.Read(ref _homes);

    /// <summary>
    /// The vCPU and I/O threads that run, with the vnode each belongs to; empty for a machine that does not keep track of them. Any thread.
    /// </summary>
    internal IReadOnlyList<HomedThread> Threads => _places?.Threads ?? [];

    /// <summary>
    /// Moves a vnode to other host nodes while the guest runs: from the first moment on new pages come from there, then those that exist
    /// are moved slice by slice, the memory that was plugged included, and at the end the vnode's threads go to its new CPUs. The policy
    /// stays of the kind it was (strict, preferred, interleave). When it is cancelled, or the kernel moves no pages at all, policy and
    /// threads are as before and pages that went stay where they are. Pages that could not be moved are told of; the vnode has its new home
    /// all the same.
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
    internal PageMigrationResult Rehome(
        int vnode,
        IReadOnlyList<int> hostNodes,
        IReadOnlyList<int> hostCpus,
        ulong? bytesPerSecond,
        Action<double, ByteSize>? progress,
        CancellationToken cancel)
    {
        if (vnode < 0 || vnode >= _homes.Length)
        {
            throw new RehomeException($"there is no vnode {vnode}: {_name} has {_homes.Length} (0-{_homes.Length - 1})");
        }

        if (hostNodes.Count == 0 || _places is not { } places)
        {
            throw new RehomeException(
                hostNodes.Count == 0
                    ? "no host nodes are named"
                    : $"{_name} runs without a place on the host and keeps no track of its threads");
        }

        if (Interlocked.Exchange(ref _moving, 1) != 0)
        {
            throw new RehomeException($"{_name}: a vnode is being moved already");
        }

        try
        {
            if (!Gate.TryEnter())
            {
                throw new RehomeException($"{_name} is being saved: move it when that is done");
            }

            if (hostCpus.Count > 0)
            {
                ThreadPlacement.PinCurrent(hostCpus); // also the check that they can be had, before anything changes
            }

            VnodeHome old = Homes[vnode];
            MemoryPolicyMode mode = NumaPlacement.PolicyFor(old.Memory.Policy, hostNodes.Count);
            PageMigrationResult result = MovePages(
                vnode, mode, hostNodes, new PageMigrationOptions { BytesPerSecond = bytesPerSecond }, progress, cancel);
            if (!result.Cancelled)
            {
                VnodeHome[] homes = [.. _homes];
                homes[vnode] = new VnodeHome(
                    old.Memory with { Policy = mode, HostNodes = hostNodes, Shares = null }, hostCpus.Count > 0 ? hostCpus : old.HostCpus);
                Volatile.Write(ref _homes, homes);
                places.Move(vnode, hostCpus.Count > 0 ? hostCpus : old.HostCpus);
            }

            return result;
        }
        finally
        {
            Gate.Leave();
            Volatile.Write(ref _moving, 0);
        }
    }

    private PageMigrationResult MovePages(
        int vnode,
        MemoryPolicyMode mode,
        IReadOnlyList<int> hostNodes,
        PageMigrationOptions options,
        Action<double, ByteSize>? progress,
        CancellationToken cancel)
    {
        List<VnodeMemory> memories = _memory.OfVnode(vnode);
        VnodePlacement[] before = [.. memories.Select(m => m.Placement)];
        bool done = false;
        try
        {
            foreach (VnodeMemory memory in memories)
            {
                memory.SetPolicy(mode, hostNodes);
            }

            PageMigration migration = new(memories, hostNodes, mode == MemoryPolicyMode.Interleave, options);
            PageMigrationResult result = migration.Run(Slice, cancel);
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

        void Slice(double seen, ByteSize moved)
        {
            progress?.Invoke(seen, moved);
            Gate.Pass();
        }
    }

    /// <summary>
    /// The threads of a device that names a vnode belong to it. One with kernel threads of its own (vhost-net) keeps those where the kernel
    /// has them.
    /// </summary>
    internal void PlaceNear(string device, int? vnode)
    {
        if (vnode is { } near)
        {
            _places?.Tie(device, near);
        }
    }

    /// <summary>Who starts the threads of devices; null: they are threads as others.</summary>
    internal IIoThreads? IoThreads => _places ?? (IIoThreads?)_threads;

    /// <summary>What a vCPU of a vnode does before it enters the guest for the first time; null for nothing.</summary>
    internal Action? WhenVcpuStarts(int vnode) => _places is { } places ? () => places.VcpuReady(vnode) : null;
}
