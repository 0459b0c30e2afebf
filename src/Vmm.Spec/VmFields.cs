using Vmm.Cpu;
using Vmm.Memory;
using Vmm.Spec.Devices;

namespace Vmm.Spec;

using Balance = FieldsOf<BalanceSpec>;
using Balloon = FieldsOf<BalloonSpec>;
using Boot = FieldsOf<BootSpec>;
using Cpu = FieldsOf<CpuSpec>;
using Paging = FieldsOf<PagingSpec>;
using Smbios = FieldsOf<SmbiosSpec>;
using Vm = FieldsOf<VmSpec>;
using Vsock = FieldsOf<VsockSpec>;

/// <summary>The fields of a VM: the root of the spec. A field is spelled here, or in the table of its topic, and nowhere else.</summary>
internal static class VmFields
{
    private static readonly SpecField[] s_boot =
    [
        Boot.Path("kernel", "bzImage or ELF64 kernel; relative to the spec file. Without one UEFI firmware starts what the disks have",
            b => b.Kernel, (b, v) => b with { Kernel = v }),
        Boot.Path("initrd", "Initial ramdisk; relative to the spec file", b => b.Initrd, (b, v) => b with { Initrd = v }),
        Boot.Text("cmdline", "Kernel command line",
            b => b.Cmdline, (b, v) => b with { Cmdline = v }) with { Max = SpecValidation.MaxCmdline },
        Boot.Word<FirmwareKind>("firmware", "What starts a VM without a kernel: uefi, of Debian's package ovmf",
            b => b.Firmware, (b, v) => b with { Firmware = v }),
        Boot.Path("variables", "File that keeps the UEFI variables, made when missing; relative to the spec file. vmmd has one of its own",
            b => b.Variables, (b, v) => b with { Variables = v }),
        Boot.Bool("secureBoot", "Not offered: it needs system management mode, which these machines do not have",
            b => b.SecureBoot ?? false, (b, v) => b with { SecureBoot = v ? true : null }),
    ];

    private static readonly SpecField[] s_balance =
    [
        Balance.Number("weight", "Share when there is not enough for all; 100 by default",
            1, BalanceSpec.MaxWeight, b => b.Weight, (b, v) => b with { Weight = v }),
        Balance.Size("minMemory", "For a VM with a balloon and without minMemory and maxMemory: the balloon may take what is beyond this",
            b => b.MinMemory, (b, v) => b with { MinMemory = v }),
    ];

    private static readonly SpecField[] s_balloon =
    [
        Balloon.Size("target", "Size of the balloon asked for at the start", b => b.Target, (b, v) => b with { Target = v }),
        Balloon.Bool("deflateOnOom", "The guest may take pages back when it runs out of memory",
            b => b.DeflateOnOom, (b, v) => b with { DeflateOnOom = v }),
        Balloon.Bool("freePageReporting", "The host takes the memory of pages the guest does not use",
            b => b.FreePageReporting, (b, v) => b with { FreePageReporting = v }),
        Balloon.Number("statsInterval", "Seconds between questions for statistics; 0 asks on demand only",
            0, 86400, b => b.StatsInterval, (b, v) => b with { StatsInterval = v }),
    ];

    private static readonly SpecField[] s_vsock =
    [
        Vsock.LongNumber("cid", "Context id of the guest", 3, uint.MaxValue - 1, s => s.Cid, (s, v) => s with { Cid = v }),
        Vsock.Path("path", "Unix socket for host programs; the guest reaches PATH_N as port N; relative to the spec file",
            s => s.Path, (s, v) => s with { Path = v }) with { Required = true },
    ];

    private static readonly SpecField[] s_cpu =
    [
        Cpu.Word("model", "host, or a model that is the same on every host that can run it",
            () => CpuModel.Names, c => c.Model, (c, v) => c with { Model = v }),
        Cpu.Texts("features", "Features beside the model's: +name adds one, -name takes one away",
            SpecValidation.MaxCpuFeatures, CpuSpec.LongestFeature,
            c => c.Features, (c, v) => c with { Features = v }),
    ];

    private static readonly SpecField[] s_smbios =
    [
        Smbios.Text("manufacturer", "Who made it; Vmm by default", s => s.Manufacturer, (s, v) => s with { Manufacturer = v }),
        Smbios.Text("product", "What it is called; Virtual machine by default", s => s.Product, (s, v) => s with { Product = v }),
        Smbios.Text("version", "Its version", s => s.Version, (s, v) => s with { Version = v }),
        Smbios.Text("serial", "Its serial number, where cloud-init looks for ds=nocloud", s => s.Serial, (s, v) => s with { Serial = v }),
        Smbios.Text("uuid", "Its UUID; left out, one that stays with the VM", s => s.Uuid, (s, v) => s with { Uuid = v }),
        Smbios.Text("sku", "Its stock keeping unit", s => s.Sku, (s, v) => s with { Sku = v }),
        Smbios.Text("family", "The family of products it belongs to", s => s.Family, (s, v) => s with { Family = v }),
        Smbios.Texts("oemStrings", "OEM strings (type 11), for programs of the guest that look for some",
            SmbiosSpec.MostOemStrings, SmbiosSpec.LongestText,
            s => s.OemStrings ?? [], (s, v) => s with { OemStrings = v }),
    ];

    private static readonly SpecField[] s_processors =
    [
        Vm.Text("name", "Name of the VM, letters, digits, '.', '_' and '-'", s => s.Name, (s, v) => s with { Name = v }),
        Vm.Number("cpus", "Number of vCPUs; with numa, all CPUs the vnodes name when left out",
            1, SpecValidation.MaxCpus, s => s.Cpus, (s, v) => s with { Cpus = v }),
        Vm.Object("cpu", "The processor the guest sees; left out, all that the host can show",
            s => s.Cpu, (s, v) => s with { Cpu = v }, s_cpu),
        Vm.Percent(
            "cpuQuota", "Most time on host CPUs the whole VM gets, in percent of one: 150% is one and a half; without it there is no quota",
            1, SpecValidation.MaxCpuQuota, s => s.CpuQuota, (s, v) => s with { CpuQuota = v }),
        Vm.Number("cpuWeight", "Share of host CPUs beside other VMs when there are not enough for all; 100 by default",
            1, SpecValidation.MaxCpuWeight, s => s.CpuWeight, (s, v) => s with { CpuWeight = v }),
        Vm.Object("topology", "How vCPUs are packed; left out, each vnode is a socket and each vCPU a core",
            s => s.Topology, (s, v) => s with { Topology = v }, NumaFields.TopologyFields),
    ];

    private static readonly SpecField[] s_paging =
    [
        Paging.Portion("resident", "Most memory that is resident on the host, a size or a percentage such as 25%; the rest is swapped out",
            p => p.Resident, (p, v) => p with { Resident = v }),
        Paging.Portion("minResident",
            "Least of it that vmmd leaves the VM when the host is short of memory, a size or a percentage; half of resident by default",
            p => p.MinResident, (p, v) => p with { MinResident = v }),
        Paging.Path("swap", "Folder of the swap file, relative to the spec file; auto, the default, where vmmd keeps its own files",
            p => p.Swap,
            (p, v) => p with { Swap = string.Equals(v, PagingSpec.AutoSwap, StringComparison.Ordinal) ? null : v }) with
        {
            Keyword = PagingSpec.AutoSwap,
        },
        Paging.Number("weight", "Share of the host's memory beside other VMs when there is not enough for all; 100 by default",
            1, PagingSpec.MaxWeight, p => p.Weight, (p, v) => p with { Weight = v }),
    ];

    private static readonly SpecField[] s_memory =
    [
        Vm.Size("memory", "RAM, e.g. 512MiB; with numa, the sum of the vnodes when left out. With a resident limit, an object",
            s => s.Memory, (s, v) => s with { Memory = v }) with
        {
            Parts =
            [
                Vm.Size("size", "RAM, as memory alone says it", s => s.Memory, (s, v) => s with { Memory = v }),
                .. Vm.Lift(s_paging, s => s.Paging ?? new PagingSpec(), (s, v) => s with { Paging = v }),
            ],
        },
        Vm.Size("minMemory", "Least RAM the VM can shrink to while it runs; the guest needs the virtio-mem driver for the rest",
            s => s.MinMemory, (s, v) => s with { MinMemory = v }),
        Vm.Size("maxMemory", "Most RAM the VM can grow to while it runs; the guest needs the virtio-mem driver",
            s => s.MaxMemory, (s, v) => s with { MaxMemory = v }),
        Vm.Object("boot", "What to boot", s => s.Boot, (s, v) => s with { Boot = v }, s_boot),
        Vm.Object("numa", "Virtual NUMA topology; true for one that follows the host",
            s => s.Numa, (s, v) => s with { Numa = v }, NumaFields.All) with
        {
            Switch = true,
            Complete = (numa, given) => (NumaSpec)numa with { Auto = !given.Contains("vnodes") },
        },
    ];

    private static readonly SpecField[] s_devices =
    [
        Vm.List("disks", "Disks in guest order",
            SpecValidation.MaxDisks, s => s.Disks, (s, v) => s with { Disks = v }, DeviceFields.DiskFields),
        Vm.List("nets", "Network devices in guest order",
            SpecValidation.MaxNets, s => s.Nets, (s, v) => s with { Nets = v }, DeviceFields.NetFields),
        Vm.List("shares", "Folders of the host that the guest can mount (virtio-fs); needs the program virtiofsd",
            ShareValidation.Most, s => s.Shares, (s, v) => s with { Shares = v }, DeviceFields.ShareFields),
        Vm.ListOfKinds("devices", "Further devices in guest order",
            SpecValidation.MaxDevices, s => s.Devices, (s, v) => s with { Devices = v }, () => [.. DeviceKinds.All.Select(k => k.Type)]),
        Vm.Bool("rng", "Attach a virtio-rng", s => s.Rng, (s, v) => s with { Rng = v }),
        Vm.Object("balance",
            "vmmd's balancer may change memory by need, between minMemory and maxMemory or by the balloon; true for the usual weight",
            s => s.Balance, (s, v) => s with { Balance = v }, s_balance) with { Switch = true },
        Vm.Object("balloon", "Memory balloon; true for one with the defaults",
            s => s.Balloon, (s, v) => s with { Balloon = v }, s_balloon) with { Switch = true },
        Vm.Object("vsock", "Sockets between host programs and the guest", s => s.Vsock, (s, v) => s with { Vsock = v }, s_vsock),
        Vm.Bool("guestAgent", "A port for the standard agent that distributions ship, qemu-guest-agent: vmmd asks it",
            s => s.GuestAgent, (s, v) => s with { GuestAgent = v }),
        Vm.Word<ConsoleKind>("console", "What the console is connected to: the serial port, a virtio console, or both",
            s => s.Console, (s, v) => s with { Console = v }),
        Vm.Bool("pvpanic", "A device through which the guest tells of its panic", s => s.PvPanic, (s, v) => s with { PvPanic = v }),
        Vm.Object("smbios", "What the guest is told of its machine: names, serial number, UUID, OEM strings",
            s => s.Smbios, (s, v) => s with { Smbios = v }, s_smbios),
        Vm.Text("generationId", "VM generation id: auto, or a UUID", s => s.GenerationId, (s, v) => s with { GenerationId = v }),
    ];

    private static readonly SpecField[] s_life =
    [
        Vm.Word<RestartPolicy>("restart", "Whether vmmd starts the VM again when it ended by itself",
            s => s.Restart, (s, v) => s with { Restart = v }),
        Vm.Word<CrashPolicy>("onCrash",
            "When the guest's kernel panics (pvpanic): stop, what restart says follows; restart it; or preserve it, its vCPUs stand still",
            s => s.OnCrash, (s, v) => s with { OnCrash = v }),
        Vm.Word<RebootPolicy>("onReboot",
            "When the guest reboots: the VM is started anew (vmmctl run: one that firmware started), or it ends as by a power-off",
            s => s.OnReboot, (s, v) => s with { OnReboot = v }),
        Vm.Bool("autostart", "vmmd starts the VM when the host has booted", s => s.Autostart, (s, v) => s with { Autostart = v }),
        Vm.Word<VirtioTransport>("virtioTransport", "Transport of devices that do not name one",
            s => s.VirtioTransport, (s, v) => s with { VirtioTransport = v }),
        Vm.Word<HotplugWay>("hotplug",
            "How disks and network devices come and go while the guest runs: by ACPI, or by PCI Express root ports",
            s => s.Hotplug, (s, v) => s with { Hotplug = v }),
        Vm.Bool("serial", "Serial console at 0x3F8", s => s.Serial, (s, v) => s with { Serial = v }),
        Vm.Bool("debugExit", "Debug-exit port", s => s.DebugExit, (s, v) => s with { DebugExit = v }),
    ];

    /// <summary>The whole spec.</summary>
    internal static SpecField Root { get; } = new("", SpecKind.Object, "A virtual machine")
    {
        Create = () => new VmSpec(),
        Fields = [.. s_processors, .. s_memory, .. s_devices, .. s_life],
        Complete = (spec, given) => Complete((VmSpec)spec, given),
    };

    /// <summary>What an entry of a list of the root is.</summary>
    internal static SpecField Part(string list) => Array.Find(Root.Fields, f => string.Equals(f.Name, list, StringComparison.Ordinal))!;

    /// <summary>CPUs and memory follow the vnodes, the command line follows the console, where nothing else was said.</summary>
    private static VmSpec Complete(VmSpec spec, IReadOnlySet<string> given)
    {
        if (!given.Contains("boot.cmdline"))
        {
            spec = spec with { Boot = spec.Boot with { Cmdline = BootSpec.DefaultCmdlineFor(spec.Console) } };
        }

        if (spec.Numa is not { Vnodes.Count: > 0 } numa)
        {
            return spec;
        }

        if (!given.Contains("cpus") && numa.Vnodes.Any(v => v.Cpus.Count > 0))
        {
            spec = spec with { Cpus = numa.Vnodes.SelectMany(v => v.Cpus).Max() + 1 };
        }

        return given.Contains("memory") ? spec : spec with { Memory = Sum(numa.Vnodes) };
    }

    private static ByteSize Sum(IReadOnlyList<VnodeSpec> vnodes)
    {
        UInt128 total = 0;
        foreach (VnodeSpec vnode in vnodes)
        {
            total += vnode.Memory.Bytes;
        }

        return new ByteSize(total > ulong.MaxValue ? ulong.MaxValue : (ulong)total);
    }
}
