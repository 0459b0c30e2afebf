using Vmm.Devices.Pci;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Tests.Spec;

/// <summary>How many devices a VM can have: what is too much is refused at the check, with the count.</summary>
public sealed class DeviceCountTests
{
    [Fact]
    public void The_largest_number_of_every_kind_of_device_is_sound_and_has_slots()
    {
        VmSpec spec = Most(VirtioTransport.Pci);
        Assert.Empty(SpecValidation.Validate(spec));
        Assert.Equal(64 + 8 + 64 + 5, DeviceCount.Pci(spec));
        Assert.InRange(DeviceCount.Pci(spec), 1, DeviceCount.MostPci);
    }

    /// <summary>
    /// Bridges: two for a small VM, enough for every number that passes the check, and room for 31 more wherever there can be.
    /// </summary>
    [Fact]
    public void Every_number_of_devices_has_its_slots()
    {
        for (int devices = 0; devices <= DeviceCount.MostPci; devices++)
        {
            int bridges = DeviceSlots.Bridges(devices), slots = PciHostBridge.Slots * (1 + bridges) - 1 - bridges;
            Assert.True(slots >= devices + (bridges < 5 ? 31 : 0), $"{devices} devices, {bridges} bridges, {slots} slots");
        }

        Assert.Equal(2, DeviceSlots.Bridges(0));
        Assert.Equal(DeviceCount.MostPci, DeviceSlots.MostPci);
    }

    /// <summary>Sixteen ports for a small VM, eight to spare for a larger one as long as bus 0 has slots for them, each in a place of its
    /// own.</summary>
    [Fact]
    public void Every_number_of_disks_has_its_ports()
    {
        VmSpec small = Most(VirtioTransport.Pci) with { Hotplug = HotplugWay.Pcie, Nets = [], Numa = null };
        for (int disks = 0; disks <= SpecValidation.MaxDisks; disks++)
        {
            VmSpec spec = small with { Disks = [.. small.Disks.Take(disks)] };
            Assert.Empty(SpecValidation.Validate(spec));
            PciTree tree = PciTree.For(spec);
            Assert.InRange(tree.Count, Math.Max(16, disks + 8), Math.Max(16, disks + 15));
            HashSet<PciAddress> places = [.. Enumerable.Range(1, tree.Count).Select(tree.Upstream)];
            Assert.Equal((tree.Count, 31), (places.Count, places.Max(p => p.Slot)));
            Assert.All(places, p => Assert.Contains(p with { Function = 0 }, places)); // software looks for others only behind function 0
            Assert.Equal(MemoryMap.PciWindow32.End.Value, tree.Window(tree.Count).Start + (ulong)tree.Window(tree.Count).Length);
        }

        VmSpec most = Most(VirtioTransport.Pci) with { Hotplug = HotplugWay.Pcie };
        Assert.Contains(SpecValidation.Validate(most), p => p.Path is "hotplug"
            && p.Message.Contains("beside 69 devices that stay there is room for 0 ports", StringComparison.Ordinal));
        VmSpec full = most with
        {
            Cpus = 17,
            Memory = ByteSize.GiB(17),
            Numa = most.Numa! with { Vnodes = [.. most.Numa!.Vnodes.Take(17)] },
        };
        Assert.Empty(SpecValidation.Validate(full)); // 22 that stay: nine slots for 72 ports, none to spare
        Assert.Equal(72, PciTree.For(full).Count);
    }

    [Fact]
    public void Too_many_are_refused_with_the_count()
    {
        VmSpec spec = Most(VirtioTransport.Mmio);
        Assert.Contains(SpecValidation.Validate(spec), p => p.Path is "virtioTransport"
            && p.Message.Contains("141 devices on virtio-mmio, and interrupt pins for 18", StringComparison.Ordinal));
        VmSpec disks = spec with
        {
            Nets = [],
            Numa = null,
            Rng = false,
            Balloon = null,
            Vsock = null,
            GuestAgent = false,
            Console = ConsoleKind.Serial,
            Memory = ByteSize.MiB(64),
            Cpus = 1
        };
        Assert.Empty(SpecValidation.Validate(disks with { Disks = [.. spec.Disks.Take(DeviceCount.MostMmio)] }));
        Assert.Single(SpecValidation.Validate(disks with { Disks = [.. spec.Disks.Take(DeviceCount.MostMmio + 1)] }));
        Assert.Empty(SpecValidation.Validate(disks with
        {
            Disks = [.. spec.Disks.Take(DeviceCount.MostMmio + 1).Select((d, i) => i == 3 ? d with { Transport = VirtioTransport.Pci } : d)]
        }));
        VmSpec more = spec with { Disks = [.. spec.Disks, new DiskSpec { Path = "/one-more" }], VirtioTransport = VirtioTransport.Pci };
        Assert.Contains(
            SpecValidation.Validate(more), p => p.Path is "disks" && p.Message.Contains("65 disks, at most 64", StringComparison.Ordinal));
    }

    private static VmSpec Most(VirtioTransport transport) => new()
    {
        Name = "most",
        Cpus = 64,
        Memory = ByteSize.GiB(64),
        Boot = new BootSpec { Kernel = "/kernel" },
        VirtioTransport = transport,
        Numa =
            new NumaSpec
            {
                Vnodes = [.. Enumerable.Range(0, 64)
                    .Select(i => new VnodeSpec { Cpus = [i], Memory = ByteSize.GiB(1), MaxMemory = ByteSize.GiB(2) })]
            },
        Disks = [.. Enumerable.Range(0, SpecValidation.MaxDisks).Select(i => new DiskSpec { Path = $"/disk{i}" })],
        Nets = [.. Enumerable.Range(0, SpecValidation.MaxNets).Select(i => new NetSpec { Tap = $"tap{i}" })],
        Rng = true,
        Balloon = new BalloonSpec(),
        Console = ConsoleKind.Virtio,
        Vsock = new VsockSpec { Cid = 5, Path = "/v" },
        GuestAgent = true,
    };
}
