using Vmm.Cpu;
using Vmm.Devices.Pci;
using Vmm.Machine.Layout;
using Vmm.Spec;

namespace Vmm.Machine.Description;

/// <summary>
/// What a guest finds of its machine, and where: the plan of <see cref="Build.MachineBuilder"/>. It comes from a spec, or from a saved VM
/// (<see cref="MachineDescriptionJson"/>), and a running machine keeps its own current: what is built from it has the same names, slots and
/// addresses. Immutable; needs no host.
/// </summary>
public sealed record MachineDescription
{
    /// <summary>Version of the written form.</summary>
    public const int CurrentVersion = 1;

    /// <summary>
    /// The spec with its vnodes and the devices that are plugged: what is behind the devices, and their options. The n-th disk of it is the
    /// n-th device of kind <c>blk</c>; so with net.
    /// </summary>
    public required VmSpec Spec { get; init; }

    /// <summary>The processor, as CPUID leaves and MSRs.</summary>
    public required CpuDescription Cpu { get; init; }

    /// <summary>The vCPUs, by number.</summary>
    public required IReadOnlyList<VcpuDescription> Vcpus { get; init; }

    /// <summary>RAM that is there from the start, in address order.</summary>
    public required IReadOnlyList<RamExtent> Ram { get; init; }

    /// <summary>Where RAM that comes and goes can be, in address order.</summary>
    public required IReadOnlyList<RamExtent> Hot { get; init; }

    /// <summary>64-bit PCI BARs.</summary>
    public required AddressWindow PciWindow64 { get; init; }

    /// <summary>PCI buses behind bus 0: behind bridges, or behind the root ports of a spec that plugs by them.</summary>
    public required int Bridges { get; init; }

    /// <summary>Those buses.</summary>
    internal PciTree Pci => new(Bridges, Spec.Hotplug == HotplugWay.Pcie, PciTree.FaceOf(Spec));

    /// <summary>The devices, in the order in which they came.</summary>
    public required IReadOnlyList<DeviceDescription> Devices { get; init; }

    /// <summary>Number of the next disk: names are not used again in one run.</summary>
    public required int NextDisk { get; init; }

    /// <summary>Number of the next network device.</summary>
    public required int NextNet { get; init; }

    /// <summary>The plan of a machine that starts with this spec.</summary>
    /// <param name="spec">A validated spec with its vnodes on this host.</param>
    /// <param name="host">The processor that this host can show.</param>
    /// <exception cref="Vmm.Placement.HostMismatchException">The spec asks for what such a machine or processor does not have.</exception>
    public static MachineDescription FromSpec(VmSpec spec, CpuDescription host) => DescribeSpec.Describe(spec, host);
}

/// <summary>A vCPU.</summary>
/// <param name="ApicId">Its APIC id.</param>
/// <param name="Vnode">Its vnode.</param>
public sealed record VcpuDescription(uint ApicId, int Vnode);

/// <summary>A virtio device and where it is.</summary>
public sealed record DeviceDescription
{
    /// <summary>Its name in the machine and in saved state: <c>disk0</c>, <c>rng</c>, <c>mem1</c>.</summary>
    public required string Id { get; init; }

    /// <summary>A name in the table of kinds.</summary>
    public required string Kind { get; init; }

    /// <summary>Its PCI function; null: it is a virtio-mmio device.</summary>
    public PciAddress? Pci { get; init; }

    /// <summary>Its virtio-mmio window, counted from the first; null: it is a PCI device.</summary>
    public int? MmioSlot { get; init; }

    /// <summary>The vnode that it is near to, or whose memory it is.</summary>
    public int? Vnode { get; init; }
}
