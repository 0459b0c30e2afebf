using System.Numerics;
using System.Runtime.CompilerServices;
using System.Text;
using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>The rules a spec has to keep, apart from its syntax. Pure: whether files exist is the command line's question.</summary>
public static class SpecValidation
{
    /// <summary>Most vCPUs: KVM_MAX_VCPUS of usual kernels; the start asks the host's KVM.</summary>
    public const int MaxCpus = 1024;

    /// <summary>
    /// Largest APIC id of a vCPU: KVM_MAX_VCPU_IDS of usual kernels; the start asks the host's KVM. No topology of <see cref="MaxCpus"/>
    /// needs a larger one, only vnodes of very different sizes do.
    /// </summary>
    public const int MaxApicId = 4095;

    /// <summary>Most features that a CPU names beside its model's.</summary>
    public const int MaxCpuFeatures = 64;

    /// <summary>Largest CPU quota, percent of one CPU: a thousand CPUs.</summary>
    public const int MaxCpuQuota = 100_000;

    /// <summary>Largest CPU weight, as cgroup v2 has it (<c>cpu.weight</c>).</summary>
    public const int MaxCpuWeight = 10_000;

    /// <summary>CPU weight of a VM that names none.</summary>
    public const int DefaultCpuWeight = 100;

    /// <summary>Most vnodes.</summary>
    public const int MaxVnodes = 64;

    /// <summary>Most disks.</summary>
    public const int MaxDisks = 64;

    /// <summary>Most entries of <c>devices</c>.</summary>
    public const int MaxDevices = 16;

    /// <summary>Most network devices.</summary>
    public const int MaxNets = 8;

    /// <summary>Most queue pairs of a network device; a worker gets one descriptor for each.</summary>
    public const int MaxNetQueues = 8;

    /// <summary>Most requests or frames a second that a limit can name.</summary>
    public const int MaxOperations = 1_000_000_000;

    /// <summary>Most request queues per disk.</summary>
    public const int MaxQueues = 64;

    /// <summary>Smallest virtqueue of a disk.</summary>
    public const int MinQueueSize = 4;

    /// <summary>Largest virtqueue.</summary>
    public const int MaxQueueSize = 1024;

    /// <summary>Longest access that the HMAT is told of, in nanoseconds.</summary>
    public const int MaxLatency = 1_000_000;

    /// <summary>Greatest bandwidth that the HMAT is told of, in 10^6 bytes a second.</summary>
    public const int MaxBandwidth = 10_000_000;

    /// <summary>Least memory of a VM and of a vnode that has any.</summary>
    public static ByteSize MinMemory => ByteSize.MiB(2);

    /// <summary>Most memory.</summary>
    public static ByteSize MaxMemory => ByteSize.GiB(16 << 10);

    private const int SerialBytes = 20;             // VIRTIO_BLK_ID_BYTES
    internal const int MaxCmdline = 65535;

    /// <summary>All problems of a spec; empty when it is sound.</summary>
    public static IReadOnlyList<SpecProblem> Validate(VmSpec spec) => Check(spec).All;

    internal static SpecComplaints Check(VmSpec spec)
    {
        SpecComplaints check = new();
        CheckCounts(spec, check);
        if (check.Problems.Count > 0)
        {
            return check; // what follows looks at pairs
        }

        CheckBasics(spec, check);
        CheckVnodes(spec, check);
        CheckDevices(spec, check);
        CheckSlots(spec, check);
        CheckParavirtual(spec, check);
        check.Require(
            spec.PvPanic || spec.OnCrash == CrashPolicy.Stop, "onCrash", "without pvpanic the guest has no way to tell of its panic");
        SpecBounds.Check(spec, check);
        return check;
    }

    /// <summary>Name, processor, memory as a whole, and what boots.</summary>
    private static void CheckBasics(VmSpec spec, SpecComplaints check)
    {
        check.Require(
            IsName(spec.Name), "name", $"\"{spec.Name}\" is not a name: 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first");
        spec.Cpu?.Check(check);
        spec.Smbios?.Check(check);
        check.Require(spec.Memory >= MinMemory && spec.Memory <= MaxMemory, "memory", $"{spec.Memory.ToString()}, expected 2MiB to 16TiB");
        check.Require(spec.Memory % 4096 == 0, "memory", $"{spec.Memory.Bytes} bytes is not a multiple of 4KiB");
        CheckBoot(spec, check);
        check.Require(Utf8Fits(spec.Boot.Cmdline, MaxCmdline), "boot.cmdline", $"is longer than {MaxCmdline} bytes");
    }

    private static void CheckBoot(VmSpec spec, SpecComplaints check)
    {
        BootSpec boot = spec.Boot;
        check.Require(boot.Initrd is not "", "boot.initrd", "is empty: leave it out or name a file");
        check.Require(boot.Variables is not "", "boot.variables", "is empty: leave it out or name a file");
        check.Require(boot.SecureBoot is not true, "boot.secureBoot",
            "is not offered: it needs system management mode (SMM) to keep a guest's kernel from the keys, and this machine has none");
        if (!boot.IsFirmware)
        {
            check.Require(boot.Firmware is null, "boot.firmware", "has nothing to start beside boot.kernel: leave one out");
            check.Require(boot.Variables is null, "boot.variables", "are those of firmware, and boot.kernel starts without it");
            return;
        }

        check.Require(boot.Firmware is not null || spec.Disks.Count > 0, "boot.kernel",
            "is missing: a VM needs a kernel, or a disk that UEFI firmware starts");
        check.Require(boot.Initrd is null, "boot.kernel", "is missing beside boot.initrd: firmware starts what the disks have");
        check.Require(spec.Hotplug != HotplugWay.Pcie, "hotplug",
            "pcie is not offered with firmware: that it finds disks behind ports was not seen yet: leave it at acpi");
        check.Require(spec.Memory >= BootSpec.LeastFirmwareMemory, "memory",
            $"{spec.Memory.ToString()}, UEFI firmware needs {BootSpec.LeastFirmwareMemory.ToString()}");
    }

    /// <summary>How CPUs and memory are spread, and how memory may change.</summary>
    private static void CheckVnodes(VmSpec spec, SpecComplaints check)
    {
        if (spec.MinMemory is not null || spec.MaxMemory is not null)
        {
            check.Require(spec.Numa is null or { Auto: true }, spec.MinMemory is null ? "maxMemory" : "minMemory",
                "belongs to the vnodes of a VM with numa");
            NumaValidation.CheckHotMemory(spec.EffectiveVnodes[0], "", check);
        }

        if (spec.Numa is { } numa)
        {
            NumaValidation.CheckNuma(spec, numa, check);
        }

        if (spec.Topology is { } topology)
        {
            NumaValidation.CheckTopology(spec, topology, check);
        }
        else if (spec.Numa is { Vnodes.Count: > 1 })
        {
            NumaValidation.CheckSockets(spec, check);
        }

        if (spec.Balance?.MinMemory is { } least)
        {
            CheckBalloonBalance(spec, least, check);
        }

        if (spec.Paging is { } paging)
        {
            PagingValidation.Check(spec, paging, check);
        }
    }

    /// <summary>The entries of the lists of devices, each by itself and beside those of its list.</summary>
    private static void CheckDevices(VmSpec spec, SpecComplaints check)
    {
        for (int i = 0; i < spec.Devices.Count; i++)
        {
            foreach (SpecProblem problem in spec.Devices[i].Check())
            {
                check.Require(false, $"devices[{i}].{problem.Path}", problem.Message);
            }
        }

        Devices.VhostUserRules.Check(spec, check);
        for (int i = 0; i < spec.Disks.Count; i++)
        {
            CheckDisk(spec, i, check);
        }

        if (spec.Nets.Count > 0)
        {
            NetValidation.CheckNets(spec, check);
        }

        if (spec.Shares.Count > 0)
        {
            ShareValidation.Check(spec, check);
        }
    }

    private static void CheckCounts(VmSpec spec, SpecComplaints check)
    {
        check.Require(spec.Disks.Count <= MaxDisks, "disks", $"{spec.Disks.Count} disks, at most {MaxDisks}");
        check.Require(spec.Cpu is null || spec.Cpu.Features.Count <= MaxCpuFeatures, "cpu.features",
            $"{spec.Cpu?.Features.Count ?? 0} features, at most {MaxCpuFeatures}");
        check.Require(spec.Devices.Count <= MaxDevices, "devices", $"{spec.Devices.Count} devices, at most {MaxDevices}");
        check.Require(spec.Shares.Count <= ShareValidation.Most, "shares",
            $"{spec.Shares.Count} shared folders, at most {ShareValidation.Most}");
        check.Require(spec.Nets.Count <= MaxNets, "nets", $"{spec.Nets.Count} network devices, at most {MaxNets}");
        if (spec.Numa is { } numa)
        {
            check.Require(numa.Vnodes.Count <= MaxVnodes, "numa.vnodes", $"{numa.Vnodes.Count} vnodes, expected 1 to {MaxVnodes}");
            CheckCounts(numa.Distances, "numa.distances", check);
            CheckCounts(numa.Latencies, "numa.latencies", check);
            CheckCounts(numa.Bandwidths, "numa.bandwidths", check);
        }
    }

    private static void CheckCounts(IReadOnlyList<IReadOnlyList<int>>? rows, string path, SpecComplaints check)
    {
        check.Require(rows is null || rows.Count <= MaxVnodes, path, $"{rows?.Count ?? 0} rows, at most {MaxVnodes}");
        for (int i = 0; rows is not null && i < rows.Count && i <= MaxVnodes; i++)
        {
            check.Require(rows[i].Count <= MaxVnodes, path, $"{rows[i].Count} numbers in row {i}, at most {MaxVnodes}");
        }
    }

    /// <summary>All devices together, also those that are no list's entry.</summary>
    private static void CheckSlots(VmSpec spec, SpecComplaints check)
    {
        int mmio = DeviceCount.Mmio(spec), pci = DeviceCount.Pci(spec);
        check.Require(mmio <= DeviceCount.MostMmio, "virtioTransport",
            $"mmio: the VM has {mmio} devices on virtio-mmio, and interrupt pins for {DeviceCount.MostMmio}: make some of them pci");
        int most = DeviceCount.MostPci - DeviceCount.OwnSlots(spec);
        check.Require(pci <= most, "disks", $"the VM has {pci} PCI devices in all, at most {most}");
        int pluggable = DeviceCount.Pluggable(spec), ports = DeviceCount.MostPorts(spec);
        check.Require(spec.Hotplug != HotplugWay.Pcie || pluggable <= ports, "hotplug",
            $"pcie: beside {DeviceCount.Fixed(spec)} devices that stay there is room for {ports} ports, and the VM has {pluggable} disks "
                + "and network devices: take acpi, or fewer devices");
    }

    private static void CheckParavirtual(VmSpec spec, SpecComplaints check)
    {
        if (spec.Balloon is { } balloon)
        {
            check.Require(balloon.Target <= spec.Memory, "balloon.target",
                $"{balloon.Target.ToString()} is more than the VM's {spec.Memory.ToString()}");
        }

        if (spec.Vsock is { } vsock)
        {
            // sun_path holds 108 bytes with its zero; the guest's ports add up to 11.
            check.Require(
                vsock.Path.Length > 0 && Utf8Fits(vsock.Path, 96), "vsock.path", $"\"{vsock.Path}\", expected a path of 1 to 96 bytes");
        }

        check.Require(spec.GenerationId is null or "auto" || Guid.TryParseExact(spec.GenerationId, "D", out _), "generationId",
            $"\"{spec.GenerationId}\", expected auto or a UUID such as 6b29fc40-ca47-1067-b31d-00dd010662da");
    }

    private static void CheckBalloonBalance(VmSpec spec, ByteSize least, SpecComplaints check)
    {
        const string Path = "balance.minMemory";
        check.Require(spec.Balloon is not null, Path, "needs a balloon: balloon: true");
        // A balloon takes pages from wherever the guest has some: of several vnodes it is not known from which.
        check.Require(spec is { MinMemory: null, MaxMemory: null, Numa: null or { Auto: false, Vnodes.Count: 1 } }
            && spec.EffectiveVnodes[0] is { MinMemory: null, MaxMemory: null, PageSize.Bytes: ByteSize.BytesPerPage }, Path,
            "is for a VM of one vnode of small pages whose memory is fixed: beside minMemory or maxMemory the balancer does without "
                + "the balloon");
        check.Require(least >= MinMemory && least <= spec.Memory && (spec.Memory - least) % BalanceSpec.BalloonBlock == 0, Path,
            $"{least.ToString()}, expected 2MiB to the VM's {spec.Memory.ToString()}, less than that by a multiple of 2MiB");
    }

    private static void CheckDisk(VmSpec spec, int index, SpecComplaints check)
    {
        DiskSpec disk = spec.Disks[index];
        string path = $"disks[{index}]";
        ImageValidation.Check(disk, path, check);
        check.Require(disk.QueueSize is >= MinQueueSize and <= MaxQueueSize && BitOperations.IsPow2(disk.QueueSize), path + ".queueSize",
            $"{disk.QueueSize}, expected a power of two from {MinQueueSize} to {MaxQueueSize}");
        check.Require(disk.LogicalBlockSize is null or 512 or 4096, path + ".logicalBlockSize",
            $"{disk.LogicalBlockSize ?? 0}, expected 512 or 4096");
        check.Require(disk.Serial is null || IsSerial(disk.Serial), path + ".serial",
            $"\"{disk.Serial}\", expected 1 to {SerialBytes} printable ASCII characters");
        DiskFormats.Check(disk, path, check);
        NbdValidation.Check(disk, path, check);
        RbdValidation.Check(disk, path, check);
        NumaValidation.CheckNearness(spec, disk.Vnode, path, check);
        if (disk.Limits is { } limits)
        {
            NetValidation.CheckLimits(limits, path + ".limits", check);
        }

        for (int i = 0; i < index; i++)
        {
            DiskSpec other = spec.Disks[i];
            check.Require(
                disk.Path.Length == 0 || !string.Equals(disk.Path, other.Path, StringComparison.Ordinal)
                    || (disk.ReadOnly && other.ReadOnly),
                path + ".path",
                $"{disk.Path} is disks[{i}] too: a disk that is written can be attached once");
            check.Require(disk.Serial is null || !string.Equals(disk.Serial, other.Serial, StringComparison.Ordinal), path + ".serial",
                $"\"{disk.Serial}\" is the serial of disks[{i}] too");
        }
    }

    private static bool Utf8Fits(string text, int bytes) => text.Length <= bytes / 4 || Utf8Length(text) <= bytes;

    [MethodImpl(MethodImplOptions.NoInlining)] // the encoding is loaded only for who needs it
    private static int Utf8Length(string text) => Encoding.UTF8.GetByteCount(text);

    /// <summary>True for what can be the name of a VM: 1 to 64 letters, digits, <c>. _ -</c>, beginning with a letter or digit.</summary>
    public static bool IsName(string name)
    {
        if (name.Length is < 1 or > 64 || !char.IsAsciiLetterOrDigit(name[0]))
        {
            return false;
        }

        foreach (char c in name)
        {
            if (!char.IsAsciiLetterOrDigit(c) && c is not ('.' or '_' or '-'))
            {
                return false;
            }
        }

        return true;
    }

    private static bool IsSerial(string serial)
    {
        foreach (char c in serial)
        {
            if (c is < ' ' or > '~')
            {
                return false;
            }
        }

        return serial.Length is >= 1 and <= SerialBytes;
    }
}
