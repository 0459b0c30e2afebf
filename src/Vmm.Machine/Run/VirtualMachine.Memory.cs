using Vmm.Devices.Virtio.Mem;
using Vmm.Machine.Layout;
using Vmm.Machine.Ram;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Machine.Run;

/// <content>Memory of vnodes that grows and shrinks while the guest runs: a virtio-mem device each.</content>
public sealed partial class VirtualMachine
{
    private readonly List<VnodeDevice> _memoryDevices = [];
    private MemoryPacer? _pacer; // null without memory devices

    private bool HasHotMemory
    {
        get
        {
            IReadOnlyList<VnodeSpec> vnodes = _spec.EffectiveVnodes;
            for (int i = 0; i < vnodes.Count; i++)
            {
                if (vnodes[i].HotMemory > 0)
                {
                    return true;
                }
            }

            return false;
        }
    }

    /// <summary>What each vnode has, was asked for and can have. Any thread.</summary>
    public IReadOnlyList<VnodeMemoryState> VnodeStates
    {
        get
        {
            IReadOnlyList<VnodeSpec> vnodes = _spec.EffectiveVnodes;
            VnodeMemoryState[] states = new VnodeMemoryState[vnodes.Count];
            for (int i = 0; i < states.Length; i++)
            {
                VirtioMem? device = MemoryDevice(i);
                VirtioMemInfo info = device?.Info ?? default;
                (ulong hot, ulong heldBack) = device is null ? default : _pacer!.StateOf(device);
                (ulong asked, ulong taken) = BalloonReachesBelow ? Below() : default;
                ByteSize most = vnodes[i].BootMemory + info.Length, wanted = new(vnodes[i].BootMemory + hot), present = vnodes[i].BootMemory + info.Plugged;
                states[i] = new VnodeMemoryState(i, vnodes[i].BootMemory, most, new ByteSize(wanted - asked), new ByteSize(present - Math.Min(taken, present)), info.Driven) { Block = vnodes[i].HotBlock, Below = new ByteSize(asked), HeldBack = new ByteSize(heldBack) };
            }

            return states;
        }
    }

    /// <summary>
    /// Asks the guest to have this much memory in a vnode. It answers at once: growing and shrinking is the guest's work and takes its time,
    /// <see cref="VnodeStates"/> tells how far it is. Below what the vnode cannot give back otherwise the balloon is asked, when the VM has one and a single
    /// vnode. Of what the guest cannot spare by its own account it is asked later, when it can (<see cref="ShrinkPace"/>). Any thread.
    /// </summary>
    /// <param name="vnode">Number of the vnode.</param>
    /// <param name="size">All memory of the vnode.</param>
    /// <param name="force">Ask for all of it at once, whatever the guest has left.</param>
    /// <exception cref="VnodeMemoryException">No such vnode, or it cannot have that much or that little.</exception>
    public void SetVnodeMemory(int vnode, ByteSize size, bool force = false)
    {
        IReadOnlyList<VnodeSpec> vnodes = _spec.EffectiveVnodes;
        if (vnode < 0 || vnode >= vnodes.Count)
        {
            throw new VnodeMemoryException($"there is no vnode {vnode}: {_spec.Name} has {vnodes.Count} (0-{vnodes.Count - 1})");
        }

        VnodeSpec spec = vnodes[vnode];
        ByteSize most = spec.BootMemory + spec.HotMemory, block = spec.HotBlock;
        if (size > most || (size < spec.BootMemory && (!BalloonReachesBelow || size < SpecValidation.MinMemory)))
        {
            throw new VnodeMemoryException(Refusal(vnode, spec, size));
        }

        if (size < spec.BootMemory ? size % ByteSize.BytesPerPage != 0 : (size - spec.BootMemory) % block != 0)
        {
            throw new VnodeMemoryException(size < spec.BootMemory
                ? $"vnode {vnode}: {size.Bytes} bytes is not a multiple of the balloon's 4KiB"
                : $"vnode {vnode} grows in blocks of {block} from {spec.BootMemory}: {size} is between two of them");
        }

        if (MemoryDevice(vnode) is { } device)
        {
            _pacer!.Wish(device, size < spec.BootMemory ? 0 : size - spec.BootMemory, force);
        }

        SetBelow(spec, size);
    }

    private string Refusal(int vnode, VnodeSpec spec, ByteSize size)
    {
        ByteSize most = spec.BootMemory + spec.HotMemory;
        string why = size > most ? ""
            : Balloon is null ? ": below that only a balloon reaches (balloon: true in the spec)"
            : BalloonReachesBelow ? $": with its balloon from {SpecValidation.MinMemory} on"
            : ": below that only the balloon reaches, which takes pages from whichever vnode the guest likes; with several vnodes it is asked for by its own size (--balloon), for the VM as a whole";
        return $"vnode {vnode} can have {spec.BootMemory} to {most} (its minMemory and maxMemory), not {size}{why}";
    }

    /// <summary>The spec with the vnodes it has on this host, which can hold them.</summary>
    private static VmSpec Projected(VmSpec spec, out NumaFitResult? fit)
    {
        HostTopology host = HostTopology.Read();
        fit = null;
        if (spec.Numa is { Fit: FitWish.Best })
        {
            fit = NumaFit.Map(spec, host, HugePagePool.Read());
            NumaFit.Require(fit, host);
            return fit.Spec;
        }

        spec = NumaProjection.Apply(spec, host);
        CheckNearness(spec);
        NumaAdmission.Check(spec, host);
        return spec;
    }

    /// <summary>Devices name vnodes; how many a topology that follows the host has is known only now.</summary>
    private static void CheckNearness(VmSpec spec)
    {
        int count = spec.EffectiveVnodes.Count, most = Math.Max(spec.Disks.Max(d => d.Vnode) ?? 0, spec.Nets.Max(n => n.Vnode) ?? 0);
        if (most >= count)
        {
            throw new HostMismatchException($"{spec.Name}: a device names vnode {most}, and the topology that follows this host has {count} (0-{count - 1}): give numa a count, or vnodes");
        }
    }

    private VirtioMem? MemoryDevice(int vnode)
    {
        foreach ((int number, VirtioMem device) in _memoryDevices)
        {
            if (number == vnode)
            {
                return device;
            }
        }

        return null;
    }

    private ByteSize[] HotSizes()
    {
        IReadOnlyList<VnodeSpec> vnodes = _spec.EffectiveVnodes;
        ByteSize[] sizes = new ByteSize[vnodes.Count];
        for (int i = 0; i < sizes.Length; i++)
        {
            sizes[i] = vnodes[i].HotMemory;
        }

        return sizes;
    }

    private void BuildMemoryDevices(VirtioSlots slots, MemoryMap map, IReadOnlyList<VnodeHome> homes, HostTopology host)
    {
        foreach (RamExtent extent in map.Hot)
        {
            VnodeSpec vnode = _spec.EffectiveVnodes[extent.Vnode];
            VnodeMemory backing = Remember(extent.Vnode, VnodeMemory.Create(HotPlacement(homes[extent.Vnode].Memory, extent.Length), host, part: ".hot"));
            _places?.Tie($"mem{extent.Vnode}", extent.Vnode);
            VirtioMem device = new(
                new VirtioMemOptions
                {
                    Name = $"mem{extent.Vnode}",
                    Start = extent.Start,
                    Length = extent.Length,
                    BlockSize = vnode.HotBlock,
                    Vnode = extent.Vnode,
                    Requested = new ByteSize(vnode.Memory - vnode.BootMemory),
                },
                new HotMemory(MapOwner, backing, extent.Start, vnode.HotBlock));
            _memoryDevices.Add(new VnodeDevice(extent.Vnode, device));
            (_pacer ??= new MemoryPacer(() => Balloon)).Add(device);
            slots.Attach($"mem{extent.Vnode}", device, _spec.VirtioTransport);
        }
    }

    /// <summary>Where plugged memory comes from: as the vnode's; from any of its host nodes, when its memory is shared out over several.</summary>
    private static VnodePlacement HotPlacement(VnodePlacement vnode, ByteSize size) => vnode.Shares is null
        ? vnode with { Size = size }
        : vnode with { Size = size, Policy = NumaPlacement.PolicyFor(vnode.Policy, vnode.HostNodes.Count), Shares = null };

    /// <summary>A class: a list of pairs would be compiled at every start.</summary>
    private sealed record VnodeDevice(int Vnode, VirtioMem Device);
}

/// <summary>Memory of one vnode now.</summary>
/// <param name="Vnode">Its number.</param>
/// <param name="Least">What it cannot go below without a balloon.</param>
/// <param name="Most">What it cannot go beyond.</param>
/// <param name="Asked">What the guest was asked to have.</param>
/// <param name="Present">What the guest has.</param>
/// <param name="Driven">A driver of the guest serves the wish; false while it has not come up, or has none.</param>
public readonly record struct VnodeMemoryState(int Vnode, ByteSize Least, ByteSize Most, ByteSize Asked, ByteSize Present, bool Driven)
{
    /// <summary>It grows and shrinks by multiples of this.</summary>
    public ByteSize Block { get; init; }

    /// <summary>How far the balloon is asked to bring it below <see cref="Least"/>: part of <see cref="Asked"/>.</summary>
    public ByteSize Below { get; init; }

    /// <summary>Of what it is to give back: what the guest has not been asked for yet, because too little would be left for it.</summary>
    public ByteSize HeldBack { get; init; }
}

/// <summary>A vnode cannot have the memory that was asked for, whatever the guest does.</summary>
public sealed class VnodeMemoryException : Exception
{
    /// <summary>Creates the error.</summary>
    public VnodeMemoryException(string message) : base(message) { }
}
