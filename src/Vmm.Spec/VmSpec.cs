using Vmm.Memory;
using Vmm.Spec.Devices;

namespace Vmm.Spec;

/// <summary>How a virtio device is attached.</summary>
public enum VirtioTransport
{
    /// <summary>virtio-pci, modern.</summary>
    Pci,

    /// <summary>virtio-mmio, announced on the command line or in ACPI.</summary>
    Mmio,
}

/// <summary>How a disk file is opened.</summary>
public enum DiskCache
{
    /// <summary>O_DIRECT: past the host's page cache.</summary>
    Direct,

    /// <summary>Through the host's page cache; flush means fdatasync.</summary>
    Buffered,
}

/// <summary>Where the host takes a vnode's pages from, see mbind(2).</summary>
public enum VnodePolicy
{
    /// <summary>
    /// No wish: vnodes are dealt out over the host's nodes when there are several of both, each preferring its own; else no mbind.
    /// </summary>
    Auto,

    /// <summary>MPOL_BIND to the host nodes.</summary>
    Strict,

    /// <summary>MPOL_PREFERRED on one host node.</summary>
    Preferred,

    /// <summary>MPOL_INTERLEAVE over the host nodes.</summary>
    Interleave,

    /// <summary>Older name of <see cref="Auto"/>; a spec that is read has that instead.</summary>
    Default,
}

/// <summary>Whether a daemon starts a VM again that ended by itself. A guest's reboot is no end: <see cref="VmSpec.OnReboot"/>.</summary>
public enum RestartPolicy
{
    /// <summary>It stays as it ended.</summary>
    Never,

    /// <summary>When it ended by a fault: of the guest's kernel or its CPU, of the VMM, of its worker.</summary>
    OnFailure,

    /// <summary>However it ended, unless somebody stopped it.</summary>
    Always,
}

/// <summary>What becomes of a VM whose guest tells of a panic of its kernel (pvpanic).</summary>
public enum CrashPolicy
{
    /// <summary>It ends; <see cref="VmSpec.Restart"/> decides whether a daemon starts it again.</summary>
    Stop,

    /// <summary>It ends, and a daemon starts it again.</summary>
    Restart,

    /// <summary>Its vCPUs stand still for good, memory and devices stay as they are until somebody stops it.</summary>
    Preserve,
}

/// <summary>
/// What becomes of a VM whose guest reboots, under a daemon; without one this is about a guest that firmware started, and the reboot of any
/// other is its end.
/// </summary>
public enum RebootPolicy
{
    /// <summary>The VM is started anew.</summary>
    Restart,

    /// <summary>It ends like one that powered off.</summary>
    Stop,
}

/// <summary>How disks and network devices come and go while the guest runs.</summary>
public enum HotplugWay
{
    /// <summary>By ACPI: any guest with ACPI knows it, and a slot is a slot of a conventional bus.</summary>
    Acpi,

    /// <summary>By PCI Express: each of them is behind a root port of its own, and the guest's driver of ports turns its slot on and
    /// off.</summary>
    Pcie,
}

/// <summary>One virtual machine as the user describes it. Immutable; checked by <see cref="SpecValidation"/>.</summary>
public sealed record VmSpec
{
    /// <summary>512 MiB.</summary>
    public static ByteSize DefaultMemory => ByteSize.MiB(512);

    /// <summary>Name in messages and process titles.</summary>
    public string Name { get; init; } = "vm";

    /// <summary>Number of vCPUs.</summary>
    public int Cpus { get; init; } = 1;

    /// <summary>Most time on host CPUs that a daemon gives the VM's worker, in percent of one CPU; null is no quota.</summary>
    public int? CpuQuota { get; init; }

    /// <summary>
    /// Share of host CPUs beside other VMs when there are not enough, <see cref="SpecValidation.DefaultCpuWeight"/> when null.
    /// </summary>
    public int? CpuWeight { get; init; }

    /// <summary>The processor the guest sees; null: all that the host can show.</summary>
    public CpuSpec? Cpu { get; init; }

    /// <summary>Sockets, dies, cores and threads; null: each vnode is a socket, each vCPU a core.</summary>
    public TopologySpec? Topology { get; init; }

    /// <summary>RAM, all vnodes together.</summary>
    public ByteSize Memory { get; init; } = DefaultMemory;

    /// <summary>
    /// Least RAM the VM can shrink to while it runs; null: as much as it starts with. With <see cref="Numa"/> each vnode has its own.
    /// </summary>
    public ByteSize? MinMemory { get; init; }

    /// <summary>
    /// Most RAM the VM can grow to while it runs; null: as much as it starts with. With <see cref="Numa"/> each vnode has its own.
    /// </summary>
    public ByteSize? MaxMemory { get; init; }

    /// <summary>How much of the memory is resident; null: all of it may be.</summary>
    public PagingSpec? Paging { get; init; }

    /// <summary>Most RAM it can have, all vnodes together.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public ByteSize MostMemory
    {
        get
        {
            UInt128 most = 0;
            foreach (VnodeSpec vnode in EffectiveVnodes)
            {
                most += Math.Max(vnode.Memory.Bytes, vnode.MaxMemory?.Bytes ?? 0);
            }

            return new ByteSize(most > ulong.MaxValue ? ulong.MaxValue : (ulong)most);
        }
    }

    /// <summary>Most RAM that is in the host's memory at once: as much as it can have, unless its spec sets a limit.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public ByteSize ResidentLimit => Paging?.Resident?.In(Memory) ?? MostMemory;

    /// <summary>Least of <see cref="ResidentLimit"/> that the host leaves it when memory is short.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public ByteSize MinResident => Paging is null ? ResidentLimit
        : Paging.MinResident?.In(Memory) ?? new ByteSize(Math.Min(
            ResidentLimit.Bytes, Math.Max(PagingSpec.LeastResident.Bytes, new ByteSize(ResidentLimit.Bytes / 2).Pages.Size.Bytes)));

    /// <summary>Kernel, initrd, command line.</summary>
    public BootSpec Boot { get; init; } = new();

    /// <summary>Virtual NUMA; null is one vnode without NUMA tables.</summary>
    public NumaSpec? Numa { get; init; }

    /// <summary>Disks in guest order (vda, vdb, …).</summary>
    public IReadOnlyList<DiskSpec> Disks { get; init; } = [];

    /// <summary>Network devices in guest order.</summary>
    public IReadOnlyList<NetSpec> Nets { get; init; } = [];

    /// <summary>Further devices in guest order.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public IReadOnlyList<DeviceSpec> Devices { get; init; } = [];

    /// <summary>
    /// The same in JSON, left out when there are none: a worker of a release that knew no devices refuses a member that it does not know.
    /// </summary>
    [System.Text.Json.Serialization.JsonInclude]
    [System.Text.Json.Serialization.JsonPropertyName("devices")]
    internal IReadOnlyList<DeviceSpec>? DevicesForJson
    {
        get => Devices.Count > 0 ? Devices : null;
        init => Devices = value ?? [];
    }

    /// <summary>Folders of the host that the guest can mount.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public IReadOnlyList<ShareSpec> Shares { get; init; } = [];

    /// <summary>The same in JSON, left out when there are none, for workers of releases that knew none.</summary>
    [System.Text.Json.Serialization.JsonInclude]
    [System.Text.Json.Serialization.JsonPropertyName("shares")]
    internal IReadOnlyList<ShareSpec>? SharesForJson
    {
        get => Shares.Count > 0 ? Shares : null;
        init => Shares = value ?? [];
    }

    /// <summary>Attach a virtio-rng.</summary>
    public bool Rng { get; init; } = true;

    /// <summary>vmmd may change memory within minMemory and maxMemory by need; null: it may not.</summary>
    public BalanceSpec? Balance { get; init; }

    /// <summary>
    /// The balancer takes memory by the balloon, and gives it back: down to <see cref="BalanceSpec.MinMemory"/>, up to
    /// <see cref="Memory"/>.
    /// </summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public bool BalancedByBalloon => Balance is { MinMemory: not null } && Balloon is not null;

    /// <summary>Memory balloon; null is none.</summary>
    public BalloonSpec? Balloon { get; init; }

    /// <summary>Socket device; null is none.</summary>
    public VsockSpec? Vsock { get; init; }

    /// <summary>A port for the standard guest agent, qemu-guest-agent.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public bool GuestAgent { get; init; }

    /// <summary>The same in JSON, left out where there is none: then a worker of any release makes the same machine.</summary>
    [System.Text.Json.Serialization.JsonInclude]
    [System.Text.Json.Serialization.JsonPropertyName("guestAgent")]
    internal bool? GuestAgentForJson
    {
        get => GuestAgent ? true : null;
        init => GuestAgent = value ?? false;
    }

    /// <summary>What the console is connected to.</summary>
    public ConsoleKind Console { get; init; }

    /// <summary>A pvpanic device, through which a guest tells of its panic.</summary>
    public bool PvPanic { get; init; } = true;

    /// <summary>VM generation id: <c>auto</c> for a new one at every start, or a UUID; null is no such device.</summary>
    public string? GenerationId { get; init; }

    /// <summary>What the guest is told of its machine by SMBIOS; null: what is told of every machine.</summary>
    public SmbiosSpec? Smbios { get; init; }

    /// <summary>The spec with a unique id of the machine, unless it names one.</summary>
    public VmSpec WithUuid(string uuid) =>
        Smbios?.Uuid is not null ? this : this with { Smbios = (Smbios ?? new SmbiosSpec()) with { Uuid = uuid } };

    /// <summary>Whether a daemon starts it again.</summary>
    public RestartPolicy Restart { get; init; }

    /// <summary>What becomes of it when the guest's kernel panics.</summary>
    public CrashPolicy OnCrash { get; init; }

    /// <summary>What becomes of it when its guest reboots.</summary>
    public RebootPolicy OnReboot { get; init; }

    /// <summary>A daemon starts it when the host has booted.</summary>
    public bool Autostart { get; init; }

    /// <summary>Transport of devices that do not name one.</summary>
    public VirtioTransport VirtioTransport { get; init; } = VirtioTransport.Pci;

    /// <summary>How devices come and go.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public HotplugWay Hotplug { get; init; }

    /// <summary>The same in JSON, left out where it is the default: then a worker of any release makes the same machine.</summary>
    [System.Text.Json.Serialization.JsonInclude]
    [System.Text.Json.Serialization.JsonPropertyName("hotplug")]
    internal HotplugWay? HotplugForJson
    {
        get => Hotplug == HotplugWay.Acpi ? null : Hotplug;
        init => Hotplug = value ?? HotplugWay.Acpi;
    }

    /// <summary>A 16550 at 0x3F8 connected to the console.</summary>
    public bool Serial { get; init; } = true;

    /// <summary>The debug-exit port.</summary>
    public bool DebugExit { get; init; } = true;

    /// <summary>The vnodes, also when <see cref="Numa"/> is null: then one with all CPUs and memory.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public IReadOnlyList<VnodeSpec> EffectiveVnodes => Numa is { Vnodes.Count: > 0 } numa ? numa.Vnodes : OneVnode();

    private VnodeSpec[] OneVnode()
    {
        VnodeSpec[] one = new VnodeSpec[1];
        one[0] = new VnodeSpec { Cpus = NumberSet.Range(0, Cpus), Memory = Memory, MinMemory = MinMemory, MaxMemory = MaxMemory };
        return one;
    }
}

/// <summary>What to boot.</summary>
public sealed record BootSpec
{
    /// <summary>Used when the user gives none: console on the serial port, reboot on panic.</summary>
    public const string DefaultCmdline = "console=ttyS0 panic=-1";

    /// <summary>Least memory of a machine that starts by firmware.</summary>
    public static ByteSize LeastFirmwareMemory => ByteSize.MiB(128);

    /// <summary>bzImage or ELF64 kernel; empty: firmware starts what the disks have.</summary>
    public string Kernel { get; init; } = "";

    /// <summary>Firmware that starts what the disks have; null: UEFI when there is no kernel, otherwise none.</summary>
    public FirmwareKind? Firmware { get; init; }

    /// <summary>File that keeps the firmware's variables, made when it is missing; null: they are gone with the VM, or vmmd keeps
    /// them.</summary>
    public string? Variables { get; init; }

    /// <summary>Only what is signed may start. Not offered; null is no.</summary>
    public bool? SecureBoot { get; init; }

    /// <summary>Firmware starts the machine, not a kernel of the spec.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public bool IsFirmware => Kernel.Length == 0;

    /// <summary>Initial ramdisk, null for none.</summary>
    public string? Initrd { get; init; }

    /// <summary>Kernel command line.</summary>
    public string Cmdline { get; init; } = DefaultCmdline;

    /// <summary>The command line of a spec that gives none: its consoles, reboot on panic.</summary>
    public static string DefaultCmdlineFor(ConsoleKind console) => console switch
    {
        ConsoleKind.Virtio => DefaultCmdline.Replace("ttyS0", "hvc0", StringComparison.Ordinal),
        ConsoleKind.Both => "console=hvc0 " + DefaultCmdline,
        _ => DefaultCmdline,
    };
}

/// <summary>What starts a machine that is given no kernel.</summary>
public enum FirmwareKind
{
    /// <summary>UEFI: the build of edk2 for Q35 that Debian's package ovmf has.</summary>
    Uefi,
}

/// <summary>What is done with a topology whose host nodes cannot be had.</summary>
public enum FitWish
{
    /// <summary>The start is refused, with the numbers.</summary>
    Exact,

    /// <summary>It is mapped onto the host as well as possible, and what came of it is told.</summary>
    Best,
}

/// <summary>Virtual NUMA topology.</summary>
public sealed record NumaSpec
{
    /// <summary>What is done when the host has not the nodes that vnodes name, or not the room.</summary>
    public FitWish Fit { get; init; }

    /// <summary>The vnodes follow the host the VM is started on; <see cref="Vnodes"/> is empty until then.</summary>
    public bool Auto { get; init; }

    /// <summary>With <see cref="Auto"/>: so many vnodes; null is as few as fit.</summary>
    public int? Count { get; init; }

    /// <summary>The virtual NUMA nodes, in order.</summary>
    public IReadOnlyList<VnodeSpec> Vnodes { get; init; } = [];

    /// <summary>
    /// SLIT rows: <c>Distances[from][to]</c>. Null is the host's between the host nodes, or 10 on the diagonal and 20 elsewhere.
    /// </summary>
    public IReadOnlyList<IReadOnlyList<int>>? Distances { get; init; }

    /// <summary>
    /// Nanoseconds of an access: <c>Latencies[from][to]</c>. Null is the host's between the host nodes, where it says so.
    /// </summary>
    public IReadOnlyList<IReadOnlyList<int>>? Latencies { get; init; }

    /// <summary>10^6 bytes a second: <c>Bandwidths[from][to]</c>. Null is the host's between the host nodes, where it says so.</summary>
    public IReadOnlyList<IReadOnlyList<int>>? Bandwidths { get; init; }
}

/// <summary>One virtual NUMA node.</summary>
public sealed record VnodeSpec
{
    /// <summary>vCPU numbers, ascending.</summary>
    public IReadOnlyList<int> Cpus { get; init; } = [];

    /// <summary>RAM; zero is a node of CPUs only.</summary>
    public ByteSize Memory { get; init; }

    /// <summary>Least RAM it can shrink to while the VM runs; null is <see cref="Memory"/>.</summary>
    public ByteSize? MinMemory { get; init; }

    /// <summary>Most RAM it can grow to while the VM runs; null is <see cref="Memory"/>.</summary>
    public ByteSize? MaxMemory { get; init; }

    /// <summary>RAM that is there from the first instruction on; the rest comes and goes in blocks (virtio-mem).</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public ByteSize BootMemory => MinMemory ?? Memory;

    /// <summary>RAM that can come and go.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public ByteSize HotMemory => new((MaxMemory ?? Memory) - BootMemory);

    /// <summary>What comes and goes at once: 2 MiB, a huge page of the vnode, or more for a region with very many of them.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public ByteSize HotBlock => new(Math.Max(PageSize, HotMemory <= ByteSize.GiB(256) ? 2UL << 20 : 128UL << 20));

    /// <summary>Host nodes for <see cref="Policy"/>, ascending.</summary>
    public IReadOnlyList<int> HostNodes { get; init; } = [];

    /// <summary>Where pages come from.</summary>
    public VnodePolicy Policy { get; init; }

    /// <summary>
    /// How much comes from which of <see cref="HostNodes"/>, in order, for a vnode that no host node can hold whole (NumaFit); never part
    /// of a file.
    /// </summary>
    internal IReadOnlyList<NodeShare>? Shares { get; init; }

    /// <summary>Host page size: 4 KiB, 2 MiB or 1 GiB.</summary>
    public ByteSize PageSize { get; init; } = new(ByteSize.BytesPerPage);
}
