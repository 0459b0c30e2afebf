using System.Text.Json;
using System.Text.Json.Nodes;
using Vmm.Cpu;
using Vmm.Devices.Pci;
using Vmm.Machine.Description;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Testing;

namespace Vmm.Machine.Tests.Layout;

/// <summary>Machine descriptions: made from specs, written, read back and refused.</summary>
public sealed class MachineDescriptionTests
{
    private static readonly CpuDescription s_host = new()
    {
        Model = "host",
        Leaves =
        [
            new CpuidLeaf(0, 0, false, 0x10, 0x6874_7541, 0x444D_4163, 0x6974_6E65),
            new CpuidLeaf(0x8000_0008, 0, false, 0x3028, 0, 0, 0),
        ],
        Msrs = [new CpuMsr(0x10A, 42)],
    };

    [Fact]
    public void The_description_of_a_spec_stays_what_it_was()
    {
        string golden = Path.Combine(Tree.Root, "tests", "Vmm.Machine.Tests", "Golden", "description-v1.json");
        string written = Text(MachineDescriptionJson.Write(MachineDescription.FromSpec(Spec, s_host)));
        if (Environment.GetEnvironmentVariable("VMM_WRITE_GOLDEN") is not null)
        {
            File.WriteAllText(golden, written);
        }

        Assert.Equal(WithoutSpec(File.ReadAllText(golden)), WithoutSpec(written));
        Assert.Equal(8, MachineDescriptionJson.Read(JsonDocument.Parse(File.ReadAllText(golden)).RootElement).Devices.Count);
        MachineDescription read = MachineDescriptionJson.Read(JsonDocument.Parse(written).RootElement);
        Assert.Equal(written, Text(MachineDescriptionJson.Write(read)));
        Assert.Equal(["disk0", "disk1", "net0", "rng", "balloon", "console", "vsock", "mem0"], read.Devices.Select(d => d.Id));
        Assert.Equal((0, 2, new PciAddress(0, 1), 2), (read.Devices[1].MmioSlot, read.Bridges, read.Devices[0].Pci, read.NextDisk));
    }

    [Fact]
    public void The_port_of_a_guest_agent_comes_after_every_other_device()
    {
        MachineDescription with = MachineDescription.FromSpec(Spec with { GuestAgent = true }, s_host);
        MachineDescription without = MachineDescription.FromSpec(Spec, s_host);
        Assert.Equal(("agent", "agent"), (with.Devices[^1].Id, with.Devices[^1].Kind));
        Assert.Equal(without.Devices.Select(d => (d.Id, d.Pci)), with.Devices.SkipLast(1).Select(d => (d.Id, d.Pci)));
        Assert.Equal(with.Devices.Count, MachineDescriptionJson.Read(MachineDescriptionJson.Write(with)).Devices.Count);
    }

    [Fact]
    public void A_slot_that_was_left_is_not_the_next_devices_after_a_rebuild()
    {
        MachineDescription first = MachineDescription.FromSpec(Spec with { Disks = [Disk("a"), Disk("b"), Disk("c")] }, s_host);
        MachineDescription later = first with
        {
            Spec = first.Spec with { Disks = [Disk("a"), Disk("c")] },
            Devices = [.. first.Devices.Where(d => d.Id is not "disk1")],
        };
        MachineDescription read = MachineDescriptionJson.Read(MachineDescriptionJson.Write(later));
        Assert.Equal([("disk0", new PciAddress(0, 1)), ("disk2", new PciAddress(0, 3))], read.Devices.Where(d => d.Kind is "blk")
            .Select(d => (d.Id, d.Pci!.Value)));
        Assert.Equal(3, read.NextDisk);
    }

    /// <summary>What comes and goes has a port, the rest is on bus 0; a description that says otherwise is refused.</summary>
    [Fact]
    public void With_ports_disks_and_network_devices_are_behind_them_and_nothing_else_is()
    {
        MachineDescription ports = MachineDescription.FromSpec(Spec with { Hotplug = HotplugWay.Pcie }, s_host);
        Assert.Equal(16, ports.Bridges);
        Assert.Equal(
            [
                ("disk0", "01:00.0"), ("disk1", "mmio"), ("net0", "02:00.0"), ("rng", "00:01.0"), ("balloon", "00:02.0"),
                ("console", "00:03.0"), ("vsock", "00:04.0"), ("mem0", "00:05.0"),
            ],
            ports.Devices.Select(d => (d.Id, d.Pci?.ToString() ?? "mmio")));
        string written = Text(MachineDescriptionJson.Write(ports));
        Assert.Equal(written, Text(MachineDescriptionJson.Write(MachineDescriptionJson.Read(JsonDocument.Parse(written).RootElement))));
        foreach ((int device, PciAddress at) in new[] { (0, new PciAddress(0, 6)), (3, new PciAddress(3, 0)), (0, new PciAddress(1, 1)) })
        {
            DeviceDescription[] moved = [.. ports.Devices];
            moved[device] = moved[device] with { Pci = at };
            InvalidDataException refused = Assert.Throws<InvalidDataException>(
                () => MachineDescriptionJson.Read(MachineDescriptionJson.Write(ports with { Devices = moved })));
            Assert.Contains("taken or does not exist", refused.Message, StringComparison.Ordinal);
        }

        Assert.Throws<InvalidDataException>(() => MachineDescriptionJson.Read(MachineDescriptionJson.Write(ports with { Bridges = 249 })));
    }

    public static TheoryData<string, string, string> Damages => new()
    {
        { "version", "2", "version 2" },
        { "nextDisk", "1", "counts fewer" },
        { "bridges", "31", "31 PCI bridges" },
        { "vcpus.0.vnode", "1", "vnode that does not exist" },
        { "vcpus.1.apicId", "0", "same APIC id" },
        { "ram.0.start", "4096", "address 0" },
        { "ram.0.length", "4095", "whole pages" },
        { "ram.0.length", "4194304000", "window of PCI" },
        { "ram.0.length", "4096", "follow" },
        { "ram.1.length", "4096", "has not the memory" },
        { "ram.0.offset", "4096", "follow" },
        { "hot.0.vnode", "-1", "vnode that does not exist" },
        { "hot.0.start", "0", "out of place" },
        { "hot.0.start", "18446744073709547520", "out of place" },
        { "pciWindow64.start", "0", "above the window" },
        { "pciWindow64.start", "18446744073709547520", "out of place" },
        { "devices.0.kind", "\"floppy\"", "floppy" },
        { "devices.0.kind", "\"rng\"", "1 devices of kind blk, and its spec 2" },
        { "devices.0.id", "\"disk1\"", "two devices disk1" },
        { "devices.0.id", "\"disk7\"", "has given" },
        { "devices.0.id", "\"../x\"", "no name" },
        { "devices.3.id", "\"rng2\"", "not the device of its spec" },
        { "devices.0.pci.slot", "2", "taken" },
        { "devices.0.pci.slot", "0", "taken" },
        { "devices.0.pci.slot", "31", "taken" },
        { "devices.0.pci.slot", "-1", "taken" },
        { "devices.0.pci.bus", "3", "taken" },
        { "devices.0.pci.function", "1", "taken" },
        { "devices.0.pci", "null", "neither" },
        { "devices.0.mmioSlot", "3", "neither" },
        { "devices.1.mmioSlot", "18", "virtio-mmio window" },
        { "devices.0.vnode", "2", "vnode that does not exist" },
        { "spec.cpus", "3", "2 vCPUs" },
        { "spec.cpus", "0", "spec in the machine description" },
        { "spec.hotplug", "\"Pcie\"", "taken or does not exist" },
        { "extra", "1", "extra" },
        { "devices", "null", "devices" },
        { "cpu.version", "9", "version 9" },
    };

    [Theory]
    [MemberData(nameof(Damages))]
    public void What_does_not_hold_together_is_refused_with_what_it_is(string member, string value, string reason)
    {
        JsonNode json = JsonNode.Parse(Text(MachineDescriptionJson.Write(MachineDescription.FromSpec(Spec, s_host))))!;
        string[] path = member.Split('.');
        JsonNode at = json;
        foreach (string step in path[..^1])
        {
            at = int.TryParse(step, out int index) ? at[index]! : at[step]!;
        }

        at[path[^1]] = JsonNode.Parse(value);
        using JsonDocument damaged = JsonDocument.Parse(json.ToJsonString());
        Exception refusal = Assert.Throws<InvalidDataException>(() => MachineDescriptionJson.Read(damaged.RootElement));
        Assert.Contains(reason, refusal.Message, StringComparison.Ordinal);
    }

    /// <summary>Random changes of one value: it is read as a whole machine, or refused as damaged; nothing else comes out.</summary>
    [Fact]
    public void A_description_that_anybody_wrote_is_read_or_refused()
    {
        Random random = new(17);
        byte[] good = JsonSerializer.SerializeToUtf8Bytes(MachineDescriptionJson.Write(MachineDescription.FromSpec(Spec, s_host)));
        int read = 0;
        for (int round = 0; round < 3000; round++)
        {
            byte[] bytes = [.. good];
            for (int i = random.Next(1, 4); i > 0; i--)
            {
                int at = random.Next(bytes.Length);
                bytes[at] = char.IsAsciiDigit((char)bytes[at]) ? (byte)random.Next('0', '9' + 1)
                    : random.Next(4) == 0 ? (byte)random.Next(256)
                    : bytes[at];
            }

            try
            {
                using JsonDocument document = JsonDocument.Parse(bytes);
                MachineDescription machine = MachineDescriptionJson.Read(document.RootElement);
                Assert.Equal(machine.Devices.Count, machine.Devices.Select(d => (d.Pci, d.MmioSlot)).Distinct().Count());
                Assert.All(machine.Ram.Concat(machine.Hot), e => Assert.True(e.Start.Value + e.Length <= 1UL << 52));
                read++;
            }
            catch (Exception refusal) when (refusal is JsonException or InvalidDataException)
            {
                // as it should be
            }
        }

        Assert.InRange(read, 10, 2990);
    }

    // The spec in it grows by members of its own, and is read whatever it lacks.
    private static string WithoutSpec(string json)
    {
        JsonNode node = JsonNode.Parse(json)!;
        node.AsObject().Remove("spec");
        return node.ToJsonString();
    }

    private static VmSpec Spec => new()
    {
        Name = "golden",
        Cpus = 2,
        Memory = ByteSize.MiB(3584),
        MaxMemory = ByteSize.MiB(4096),
        Boot = new BootSpec { Kernel = "/boot/vmlinux" },
        Disks = [Disk("a"), Disk("b") with { Front = new FrontSpec { Transport = VirtioTransport.Mmio } }],
        Nets = [new NetSpec { Tap = "tap0", Vnode = 0 }],
        Balloon = new BalloonSpec(),
        Vsock = new VsockSpec { Cid = 42, Path = "/run/v" },
        Console = ConsoleKind.Both,
    };

    private static DiskSpec Disk(string name) => new() { Source = new SourceSpec { Path = "/disks/" + name } };

    private static string Text(JsonElement json) => JsonSerializer.Serialize(json, s_indented) + "\n";

    private static readonly JsonSerializerOptions s_indented = new() { WriteIndented = true };
}
