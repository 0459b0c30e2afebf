using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Machine.Boot;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Spec.Devices;
using Vmm.Storage;
using Vmm.Testing;
using Vmm.Testing.Virtio;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>
/// What a guest finds of a few specs: RAM, PCI functions with their BARs, virtio-mmio windows, ACPI tables. The files in Golden were
/// written by the code of
/// commit 7394f0b: a guest that was installed on such a machine finds the same one for ever. Since then the BARs of virtio functions say
/// that they have 64 bits.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class LayoutGoldenTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-layout-").FullName;

    public static TheoryData<string> Names => ["small", "everything", "mmio", "numa", "many-disks", "pcie"];

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmTheory]
    [MemberData(nameof(Names))]
    public void A_guest_finds_the_machine_that_it_always_found(string name)
    {
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(Spec(name), new FakeResources(_folder), terminal, prepared: null);
        string found = Describe(machine);
        string golden = Path.Combine(Tree.Root, "tests", "Vmm.Machine.Tests", "Golden", $"layout-{name}.txt");
        if (Environment.GetEnvironmentVariable("VMM_WRITE_GOLDEN") is not null)
        {
            File.WriteAllText(golden, found);
        }

        Assert.Equal(File.ReadAllText(golden), found);
    }

    [KvmTheory]
    [MemberData(nameof(Names))]
    public void Without_boot_it_is_the_same_machine_with_memory_and_registers_untouched(string name)
    {
        using Terminal terminal = new();
        VmSpec spec = Spec(name);
        spec = spec with { Boot = spec.Boot with { Kernel = "/nonexistent/kernel", Initrd = "/nonexistent/initrd" } };
        using VirtualMachine machine = VirtualMachine.CreateWithoutBoot(spec, new FakeResources(_folder), terminal, prepared: null);
        string golden = File.ReadAllText(Path.Combine(Tree.Root, "tests", "Vmm.Machine.Tests", "Golden", $"layout-{name}.txt"));
        Assert.Equal(WithoutBars(golden[..golden.IndexOf("acpi ", StringComparison.Ordinal)]), WithoutBars(Describe(machine)));
        byte[] page = new byte[4096];
        for (ulong at = 0; at < 16 << 20; at += 4096)
        {
            Assert.True(machine.Memory.TryRead(new GuestAddress(at), page));
            Assert.False(page.AsSpan().ContainsAnyExcept((byte)0), $"0x{at:x}");
        }

        Assert.Equal((0xFFF0UL, 0xFFFF_0000UL), (machine.Vcpus[0].GetRegs().Rip, machine.Vcpus[0].GetSregs().Cs.Base)); // as after a reset
    }

    // Addresses of BARs are written by firmware, and come back with the state of the function: command register, BARs and the hash of all.
    private static string WithoutBars(string layout) => string.Join('\n', layout.Split('\n').Select(line =>
        line.StartsWith("pci ", StringComparison.Ordinal) && line.Split(' ') is [_, string at, string config, _]
            ? $"{at} {config[..8]} {config[16..32]}"
            : line));

    internal VmSpec Spec(string name)
    {
        VmSpec spec = GuestSpec("hotplug") with { Name = "golden" };
        return name switch
        {
            "small" => spec,
            "everything" => spec with
            {
                Cpus = 3,
                MaxMemory = ByteSize.MiB(512),
                Disks = [Disk("a"), Disk("b")],
                Nets = [new NetSpec { Tap = "t0", Mtu = 1500, Queues = 2 }, new NetSpec { Tap = "t1", Mtu = 1500 }],
                Balloon = new BalloonSpec(),
                Vsock = new VsockSpec { Cid = 42, Path = Path.Combine(_folder, "v") },
                Console = ConsoleKind.Both,
                GenerationId = "3d1c6e0e-9f5e-4a5c-8f53-5f5f0c6ad1b2",
            },
            "mmio" => spec with
            {
                VirtioTransport = VirtioTransport.Mmio,
                Disks = [Disk("a"), Disk("b") with { Front = new FrontSpec { Transport = VirtioTransport.Pci } }],
                Nets = [new NetSpec { Tap = "t0", Mtu = 1500 }],
                Balloon = new BalloonSpec(),
                Serial = false,
                Console = ConsoleKind.Virtio,
                PvPanic = false,
            },
            "numa" => spec with
            {
                Cpus = 4,
                Memory = ByteSize.MiB(4096),
                Numa = new NumaSpec
                {
                    Vnodes =
                    [
                        new VnodeSpec { Cpus = [0, 1], Memory = ByteSize.MiB(3584), MaxMemory = ByteSize.MiB(4096) },
                        new VnodeSpec { Cpus = [2, 3], Memory = ByteSize.MiB(512), MaxMemory = ByteSize.MiB(1024) },
                    ],
                    Distances = [[10, 20], [20, 10]],
                    Latencies = [[100, 200], [200, 100]],
                    Bandwidths = [[20000, 10000], [10000, 20000]],
                },
                Disks = [Disk("a") with { Vnode = 1 }],
            },
            "pcie" => spec with
            {
                Hotplug = HotplugWay.Pcie,
                Disks = [Disk("a"), Disk("b"), Disk("c") with { Front = new FrontSpec { Transport = VirtioTransport.Mmio } }],
                Nets = [new NetSpec { Tap = "t0", Mtu = 1500 }],
                Balloon = new BalloonSpec(),
            },
            "many-disks" => spec with { Disks = [.. Enumerable.Range(0, 40).Select(i => Disk("d" + i))] },
            _ => throw new ArgumentOutOfRangeException(nameof(name)),
        };
    }

    private DiskSpec Disk(string name)
    {
        string path = Path.Combine(_folder, name);
        using FileStream file = File.Create(path);
        file.SetLength(1 << 20);
        return new DiskSpec { Source = new SourceSpec { Path = path } };
    }

    private static string Describe(VirtualMachine machine)
    {
        StringBuilder text = new();
        foreach (GuestRegion region in machine.Memory.Regions)
        {
            Line(text, $"ram 0x{region.Start.Value:x} {region.Length.Bytes} vnode {region.Vnode}");
        }

        DescribePci(machine, text);
        foreach (string argument in machine.Slots.KernelArguments)
        {
            Line(text, $"mmio {argument}");
        }

        foreach (Hotplug.PluggedDevice device in machine.Devices)
        {
            Line(text, $"device {device.Name} {device.Address?.ToString() ?? "mmio"} {device.Disk?.Serial}");
        }

        DescribeAcpi(machine, text);
        return text.ToString();
    }

    private static void DescribePci(VirtualMachine machine, StringBuilder text)
    {
        for (ulong function = 0; function < (ulong)machine.Slots.Bridge.Buses << 8; function++)
        {
            byte[] config = new byte[256];
            for (int at = 0; at < config.Length; at += 4)
            {
                machine.Slots.Bridge.Ecam.Read((function << 12) + (ulong)at, config.AsSpan(at, 4));
            }

            if (BinaryPrimitives.ReadUInt16LittleEndian(config) != 0xFFFF)
            {
                string place = $"{function >> 8}:{(function >> 3) & 31}{((function & 7) == 0 ? "" : $".{function & 7}")}";
                Line(text, $"pci {place} {Convert.ToHexStringLower(config.AsSpan(0, 64))} {Hash(config)}");
            }
        }
    }

    private static void DescribeAcpi(VirtualMachine machine, StringBuilder text)
    {
        byte[] rsdp = new byte[36];
        Assert.True(machine.Memory.TryRead(new GuestAddress(BootLayout.AcpiTables), rsdp));
        ulong xsdt = BinaryPrimitives.ReadUInt64LittleEndian(rsdp.AsSpan(24));
        if (xsdt == 0)
        {
            return;
        }

        byte[] tables = Table(machine, xsdt, text);
        for (int at = 36; at + 8 <= tables.Length; at += 8)
        {
            byte[] table = Table(machine, BinaryPrimitives.ReadUInt64LittleEndian(tables.AsSpan(at)), text);
            if (table.AsSpan().StartsWith("FACP"u8))
            {
                Table(machine, BinaryPrimitives.ReadUInt64LittleEndian(table.AsSpan(140)), text); // X_DSDT
            }
        }
    }

    private static byte[] Table(VirtualMachine machine, ulong at, StringBuilder text)
    {
        Assert.True(machine.Memory.TryRead(new GuestAddress(at + 4), out uint length));
        byte[] table = new byte[length];
        Assert.True(machine.Memory.TryRead(new GuestAddress(at), table));
        Line(text, $"acpi {Encoding.ASCII.GetString(table, 0, 4)} 0x{at:x} {length} {Hash(table)}");
        return table;
    }

    private static string Hash(byte[] bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes).AsSpan(0, 8));

    private static void Line(StringBuilder text, FormattableString line) =>
        text.Append(line.ToString(CultureInfo.InvariantCulture)).Append('\n');

    /// <summary>Files as the spec names them, network devices of nothing.</summary>
    private sealed class FakeResources(string folder) : IMachineResources
    {
        private readonly PathResources _paths = new();

        public KvmSystem OpenKvm() => _paths.OpenKvm();

        public BootFile OpenKernel(BootSpec boot) => _paths.OpenKernel(boot);

        public BootFile OpenInitrd(BootSpec boot) => _paths.OpenInitrd(boot);

        public BootFile OpenFirmware(BootSpec boot) => _paths.OpenFirmware(boot);

        public FileDescriptorHandle? OpenVariables(BootSpec boot) => _paths.OpenVariables(boot);

        public BootFile OpenVariableTemplate(BootSpec boot) => _paths.OpenVariableTemplate(boot);

        public FileDescriptorHandle OpenUserfault() => throw new NotSupportedException();

        public FileDescriptorHandle OpenSwap(PagingSpec paging) => throw new NotSupportedException();

        public IDiskBackend OpenDisk(int index, DiskSpec disk)
        {
            Assert.StartsWith(folder, disk.Path, StringComparison.Ordinal);
            return _paths.OpenDisk(index, disk);
        }

        public FileDescriptorHandle OpenDeviceFile(int index, DeviceFile file) => _paths.OpenDeviceFile(index, file);

        public INetBackend OpenNet(int index, NetSpec net) => new MemoryNet(net.Queues);

        public VhostUserLink OpenShare(int index, ShareSpec share) => throw new NotSupportedException();

        public VhostUserLink OpenBackEnd(int index, string id, DeviceSpec device, VhostUserNeeds needs) =>
            throw new NotSupportedException();
    }
}
