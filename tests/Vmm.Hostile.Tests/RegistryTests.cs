using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;

namespace Vmm.Hostile.Tests;

public sealed class RegistryTests
{
    [Fact]
    public void Every_virtio_device_is_in_the_list_that_hostile_cases_run_over()
    {
        HashSet<Type> listed = [];
        foreach (string name in DeviceRegistry.Names)
        {
            using DeviceBench bench = DeviceRegistry.Create(name);
            listed.Add(bench.Device.GetType());
        }

        // Nothing of ours reads a ring of these: their own tests are Vmm.Devices.Tests/VhostUser.
        Type[] servedElsewhere = [typeof(VhostUserBlk), typeof(VhostUserNet)];
        IEnumerable<Type> all = typeof(VirtioDevice).Assembly.GetTypes().Where(t => t.IsSubclassOf(typeof(VirtioDevice)) && !t.IsAbstract)
            .Except(servedElsewhere);
        Assert.Equal(all.OrderBy(t => t.Name, StringComparer.Ordinal), listed.OrderBy(t => t.Name, StringComparer.Ordinal));
    }

    [Fact]
    public void Only_disks_ask_for_what_only_disks_do_and_only_network_devices_make_vcpus_ask()
    {
        foreach (string name in DeviceRegistry.Names)
        {
            using DeviceBench bench = DeviceRegistry.Create(name);
            VirtioDevice device = bench.Device;
            Assert.Equal(device is VirtioBlk, device.ThreadNeeds.Calls.Contains("fallocate", StringComparer.Ordinal));
            Assert.Equal(device is VirtioBlk, device.ThreadNeeds.Ioctls.Contains(0x1277u)); // BLKDISCARD
            Assert.Equal(device is VirtioNet, device.VcpuNeeds != SyscallNeeds.None);
            Assert.Same(device.ThreadNeeds, device.ThreadNeeds); // one filter for all of a kind
        }
    }

    public static TheoryData<string, TransportKind> All
    {
        get
        {
            TheoryData<string, TransportKind> data = [];
            foreach (string name in DeviceRegistry.Names)
            {
                data.Add(name, TransportKind.Pci);
                data.Add(name, TransportKind.Mmio);
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(All))]
    public void A_driver_that_keeps_to_the_rules_is_served_on_every_queue_also_after_resets(string device, TransportKind transport)
    {
        using DeviceBench bench = DeviceRegistry.Create(device);
        using DeviceGuest guest = new(bench.Device, transport);
        for (int round = 0; round < 3; round++)
        {
            bench.Heal(guest);
            bench.ServeAll(guest);
        }
    }
}
