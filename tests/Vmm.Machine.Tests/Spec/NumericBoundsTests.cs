using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Net;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Tests.Spec;

/// <summary>The spec and the devices have the same bounds: what the check lets through starts, and what it refuses would not.</summary>
public sealed class NumericBoundsTests
{
    [Fact]
    public void A_disk_that_the_check_lets_through_is_one_that_the_device_takes()
    {
        for (int size = 0; size <= 4096; size++)
        {
            DiskSpec disk = new() { Path = "/disk", QueueSize = size };
            Assert.True(IsSound(With(disk)) == DeviceTakes(disk),
                $"queueSize {size}: sound {IsSound(With(disk))}, the device takes it: {DeviceTakes(disk)}");
        }

        for (int queues = 0; queues <= 100; queues++)
        {
            DiskSpec disk = new() { Path = "/disk", Queues = queues };
            Assert.Equal(IsSound(With(disk)), queues > 0 && DeviceTakes(disk));
        }
    }

    [Theory]
    [InlineData("queueSize: 2", false)]
    [InlineData("queueSize: 4", true)]
    [InlineData("queueSize: 1024", true)]
    [InlineData("queueSize: 2048", false)]
    [InlineData("queues: 64", true)]
    [InlineData("queues: 65", false)]
    public void The_reader_has_the_bounds_of_the_check(string field, bool sound)
    {
        string text = "name: a\nmemory: 64MiB\nboot:\n  kernel: /k\ndisks:\n  - path: /d\n    " + field + "\n";
        Exception? problem = Record.Exception(() => SpecReader.Read(text, "a.yaml", "/specs"));
        Assert.Equal(sound, problem is null);
    }

    [Fact]
    public void A_network_device_that_the_check_lets_through_is_one_that_the_device_takes()
    {
        foreach (int mtu in (int[])[1, 67, 68, 69, 1500, 65534, 65535, 65536])
        {
            bool takes = Record.Exception(() => new VirtioNetOptions { Mac = new byte[6], Mtu = mtu }.Validate()) is null;
            Assert.Equal(IsSound(Plain with { Nets = [new NetSpec { Tap = "tap0", Mtu = mtu }] }), takes);
        }
    }

    private static VmSpec Plain { get; } = new() { Name = "bounds", Memory = ByteSize.MiB(64), Boot = new BootSpec { Kernel = "/kernel" } };

    private static VmSpec With(DiskSpec disk) => Plain with { Disks = [disk] };

    private static bool IsSound(VmSpec spec) => SpecValidation.Validate(spec).Count == 0;

    private static bool DeviceTakes(DiskSpec disk) => Record.Exception(() => DiskFront.Options("disk0", disk, cpus: 1).Validate()) is null;
}
