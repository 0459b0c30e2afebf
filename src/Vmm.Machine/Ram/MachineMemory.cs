using Vmm.Devices.Virtio.Mem;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Memory.Paging;
using Vmm.Placement;

namespace Vmm.Machine.Ram;

/// <summary>
/// The guest's memory: what is behind it on the host, vnode by vnode, and its map. It is unmapped when this is disposed, after all that
/// touches it.
/// </summary>
internal sealed class MachineMemory : IDisposable
{
    private readonly List<IDisposable> _owned = [];
    private readonly List<(int Vnode, VnodeMemory Memory)> _vnodes = [];
    private readonly IReadOnlyList<VnodeHome> _homes;
    private readonly HostTopology _host;
    private readonly PassedMemory? _passed;
    private MemoryMapOwner? _map;

    /// <param name="ram">RAM of the start.</param>
    /// <param name="homes">Where each vnode lives.</param>
    /// <param name="host">The host's nodes.</param>
    /// <param name="passed">Where all of it comes from, with its content; null: it is made.</param>
    /// <exception cref="KernelException">The kernel refused memory.</exception>
    internal MachineMemory(IReadOnlyList<RamExtent> ram, IReadOnlyList<VnodeHome> homes, HostTopology host, PassedMemory? passed = null)
    {
        (_homes, _host, _passed) = (homes, host, passed);
        try
        {
            VnodeMemory?[] vnodes = homes.Count == 1 ? OneVnode() : VnodesSideBySide();
            GuestRegion[] regions = new GuestRegion[ram.Count];
            for (int i = 0; i < regions.Length; i++)
            {
                VnodeMemory backing = vnodes[ram[i].Vnode]!;
                regions[i] = backing.Region(ram[i].Start, ram[i].Length, ram[i].BackingOffset);
                Extents.Add(new MemoryExtent(ram[i].Start, ram[i].Length, backing.BackingFile, ram[i].BackingOffset));
            }

            Guest = new GuestMemory(regions);
            Start.AddRange(_vnodes); // what comes and goes is added later
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>As devices see it.</summary>
    internal GuestMemory Guest { get; }

    /// <summary>What changes which guest addresses are memory; after <see cref="Show"/>.</summary>
    internal MemoryMapOwner Map => _map ?? throw new InvalidOperationException("the VM has no memory yet");

    /// <summary>Makes it reachable for the guest.</summary>
    /// <exception cref="KernelException">KVM refused.</exception>
    internal void Show(KvmVm vm) => _map = new MemoryMapOwner(Guest.Ram, new KvmMemorySlots(vm));

    /// <summary>Memory of a vnode that comes and goes.</summary>
    /// <param name="extent">Where the guest sees it.</param>
    /// <param name="block">It comes and goes in multiples of this.</param>
    internal IPluggableMemory AddHot(RamExtent extent, ByteSize block)
    {
        VnodeMemory? received = Hot.Find(each => each.Vnode == extent.Vnode).Memory;
        return new HotMemory(Map, received ?? AddHotBacking(extent), extent.Start, block);
    }

    /// <summary>What is behind memory that comes and goes, of a machine that gets its content before it is built.</summary>
    /// <param name="extent">Where the guest sees it.</param>
    internal VnodeMemory AddHotBacking(RamExtent extent)
    {
        VnodeMemory backing = Keep(
            extent.Vnode, VnodeMemory.Create(
                HotPlacement(_homes[extent.Vnode].Memory, extent.Length), _host, part: ".hot", passed: _passed?.Take()));
        Hot.Add((extent.Vnode, backing));
        Extents.Add(new MemoryExtent(extent.Start, extent.Length, backing.BackingFile, 0));
        return backing;
    }

    /// <summary>
    /// Keeps the resident part below a limit, from before anything touches the memory, with all that can come while the guest runs.
    /// </summary>
    /// <param name="parts">The pager, without the memory.</param>
    /// <exception cref="KernelException">The kernel refused.</exception>
    internal MemoryPager Page(PagerParts parts)
    {
        MemoryPager pager = new(parts with { Memories = Paged });
        pager.Serve(Guest.Ram);
        _owned.Add(pager); // it ends before the memory, and after all that touches it
        return pager;
    }

    /// <summary>What a pager has, in its order: the memory of the start and that which comes and goes.</summary>
    internal IReadOnlyList<VnodeMemory> Paged => [.. from each in _vnodes select each.Memory];

    /// <summary>Memory of a device that other devices may transfer to: it stays mapped as long as the guest's.</summary>
    internal void Keep(IDisposable mapping) => _owned.Add(mapping);

    /// <summary>What another process maps that serves rings of the guest. Whole from before the guest starts.</summary>
    internal List<MemoryExtent> Extents { get; } = [];

    /// <summary>The memory of the start, one entry a vnode that has some.</summary>
    internal List<(int Vnode, VnodeMemory Memory)> Start { get; } = [];

    /// <summary>The memory that comes and goes, one entry a vnode that has some.</summary>
    internal List<(int Vnode, VnodeMemory Memory)> Hot { get; } = [];

    /// <summary>What is behind a vnode: its memory of the start, and that which comes and goes.</summary>
    internal List<VnodeMemory> OfVnode(int vnode) => [.. from each in _vnodes where each.Vnode == vnode select each.Memory];

    /// <inheritdoc/>
    public void Dispose()
    {
        for (int i = _owned.Count - 1; i >= 0; i--)
        {
            _owned[i].Dispose();
        }

        _owned.Clear();
    }

    private VnodeMemory?[] OneVnode() => [Keep(0, VnodeMemory.Create(_homes[0].Memory, _host, passed: _passed?.Take()))];

    /// <summary>
    /// What touches in guest addresses touches here too, so that a buffer over the border of two vnodes is one range for devices. Only a
    /// vnode of huge pages behind one whose size is not a multiple of them starts at the next multiple.
    /// </summary>
    private VnodeMemory?[] VnodesSideBySide()
    {
        ulong[] offsets = new ulong[_homes.Count];
        ulong length = 0, alignment = ByteSize.BytesPerPage;
        for (int i = 0; i < offsets.Length; i++)
        {
            ulong page = _homes[i].Memory.PageSize;
            offsets[i] = (length + page - 1) & ~(page - 1);
            length = offsets[i] + _homes[i].Memory.Size;
            alignment = Math.Max(alignment, page);
        }

        AddressReservation addresses = new(length, alignment);
        _owned.Add(addresses);
        VnodeMemory?[] vnodes = new VnodeMemory?[_homes.Count];
        for (int i = 0; i < vnodes.Length; i++)
        {
            vnodes[i] = _homes[i].Memory.Size > 0
                ? Keep(i, VnodeMemory.Create(
                    _homes[i].Memory, _host, within: addresses, offset: offsets[i], passed: _passed?.Take()))
                : null;
        }

        return vnodes;
    }

    /// <summary>
    /// Where plugged memory comes from: as the vnode's; from any of its host nodes, when its memory is shared out over several.
    /// </summary>
    private static VnodePlacement HotPlacement(VnodePlacement vnode, ByteSize size) => vnode.Shares is null
        ? vnode with { Size = size }
        : vnode with { Size = size, Policy = NumaPlacement.PolicyFor(vnode.Policy, vnode.HostNodes.Count), Shares = null };

    private VnodeMemory Keep(int vnode, VnodeMemory memory)
    {
        _vnodes.Add((vnode, memory));
        _owned.Add(memory);
        return memory;
    }
}
