using Vmm.Devices.Virtio.Blk;
using Vmm.LifeCycle;
using Vmm.Machine.Description;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>Differencing disks become the tops of the disks of a machine: all of them, or none.</summary>
public sealed class DiskSnapshotTests : IDisposable
{
    private const int Size = 32 << 20;

    private static readonly TimeSpan s_soon = TimeSpan.FromSeconds(60);

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-snap-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void The_tops_become_bases_and_the_spec_names_the_overlays()
    {
        DeviceTable table = new();
        using VirtioBlk raw = Add(table, "disk0", "raw.img", DiskFormat.Raw), image = Add(table, "disk1", "image.qcow2", DiskFormat.Qcow2);
        Assert.Throws<BlockException>(() => RawFileBackend.Open(In("raw.img"), new RawFileOptions { ReadOnly = true }));
        DiskOverlay one = Overlay("disk0", "raw.img", DiskFormat.Raw), two = Overlay("disk1", "image.qcow2", DiskFormat.Qcow2);
        DiskSnapshot.Take("vm", table, [one, two], false, null, null);
        DiskSpec[] disks = [.. table.All.Select(device => device.DiskSpec!)];
        Assert.Equal([In("disk0.top"), In("disk1.top")], disks.Select(disk => disk.Path));
        Assert.Equal([[new BackingSpec(In("raw.img"), DiskFormat.Raw)], [new BackingSpec(In("image.qcow2"), DiskFormat.Qcow2)]],
            disks.Select(disk => disk.Backing!));
        Assert.All(table.All, device => Assert.False(device.IsCopied));
        Assert.Equal([Size, Size], new[] { raw, image }.Select(device => (int)device.Disk.Geometry.CapacityBytes));
        foreach (string was in (string[])["raw.img", "image.qcow2"])
        {
            // It may be read, and not written.
            RawFileBackend.Open(In(was), new RawFileOptions { ReadOnly = true, IsImage = true }).Dispose();
            Assert.Throws<BlockException>(() => RawFileBackend.Open(In(was), new RawFileOptions { IsImage = true }));
        }
    }

    [Theory]
    [InlineData("missing")]
    [InlineData("busy")]
    [InlineData("twice")]
    [InlineData("damaged")]
    public void What_fails_leaves_all_disks_as_they_were_and_closes_the_overlays(string why)
    {
        DeviceTable table = new();
        using VirtioBlk raw = Add(table, "disk0", "raw.img", DiskFormat.Raw), image = Add(table, "disk1", "image.qcow2", DiskFormat.Qcow2);
        table.All[1].IsCopied = why == "busy";
        DiskOverlay one = Overlay("disk0", "raw.img", DiskFormat.Raw), two = Overlay("disk1", "image.qcow2", DiskFormat.Qcow2);
        if (why == "damaged")
        {
            using FileStream file = new(In("disk1.top"), FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
            file.Write(new byte[64]);
        }

        two = two with { Device = why switch { "missing" => "disk7", "twice" => "disk0", _ => "disk1" } };
        Assert.ThrowsAny<Exception>(() => DiskSnapshot.Take("vm", table, [one, two], false, null, null));
        Assert.Equal([In("raw.img"), In("image.qcow2")], table.All.Select(device => device.DiskSpec!.Path));
        Assert.Equal([false, why == "busy"], table.All.Select(device => device.IsCopied));
        Assert.Throws<BlockException>(() => RawFileBackend.Open(In("raw.img"), new RawFileOptions { ReadOnly = true }));
        foreach (string overlay in (string[])["disk0.top", "disk1.top"])
        {
            RawFileBackend.Open(In(overlay), new RawFileOptions { IsImage = true }).Dispose(); // nobody has it
        }

        table.All[1].IsCopied = false;
        File.Delete(In("disk0.top"));
        DiskSnapshot.Take("vm", table, [Overlay("disk0", "raw.img", DiskFormat.Raw)], false, null, null); // and again
        Assert.Equal(In("disk0.top"), table.All[0].DiskSpec!.Path);
    }

    /// <summary>The guest verifies all that it reads, over three overlays.</summary>
    [KvmTheory]
    [Trait("Tier", "kvm")]
    [InlineData(1)]
    [InlineData(2)]
    public void A_running_guest_goes_on_in_overlays_and_finds_what_it_wrote(int queues)
    {
        using Terminal terminal = new();
        Make("disk.img", DiskFormat.Raw);
        VmSpec spec = GuestSpec("blk");
        spec = spec with
        {
            Boot = spec.Boot with { Cmdline = "requests=40000" },
            Memory = ByteSize.MiB(64),
            Disks = [new DiskSpec { Path = In("disk.img"), Queues = queues }],
        };
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        Thread thread = Start(machine, out Func<RunResult> result);
        Assert.True(SpinWait.SpinUntil(() => machine.Counters.Disks.Single().Counters.Writes > 50, s_soon));
        (string below, DiskFormat format) = ("disk.img", DiskFormat.Raw);
        for (int round = 0; round < 3; round++)
        {
            machine.SnapshotDisks([Overlay("disk0", below, format, $"top{round}")], note: null);
            (below, format) = ($"top{round}", DiskFormat.Qcow2);
            Assert.Equal(In(below), machine.Description.Spec.Disks.Single().Path);
            Thread.Sleep(50);
        }

        Assert.True(thread.IsAlive, "the guest was over before its disk had overlays");
        byte[] old = File.ReadAllBytes(In("disk.img"));
        thread.Join();
        Assert.Equal(ExitReason.DebugExit, result().Reason);
        Assert.Contains("verify=ok", terminal.Said, StringComparison.Ordinal);
        Assert.Equal(old, File.ReadAllBytes(In("disk.img")));
    }

    private string In(string name) => Path.Combine(_folder, name);

    private void Make(string name, DiskFormat format)
    {
        if (format == DiskFormat.Qcow2)
        {
            Qcow2Creator.Create(In(name), new Qcow2CreateOptions { DiskSize = Size });
            return;
        }

        using FileStream file = File.Create(In(name));
        file.SetLength(Size);
    }

    private VirtioBlk Add(DeviceTable table, string id, string name, DiskFormat format)
    {
        Make(name, format);
        VirtioBlk device = new(format == DiskFormat.Qcow2
            ? DiskImageChain.Open(In(name), new RawFileOptions()).ToDisk()
            : RawFileBackend.Open(In(name)));
        table.Add(new AttachedDevice(
            new DeviceDescription { Id = id, Kind = "blk" }, device, disk: new DiskSpec { Path = In(name), Format = format }));
        return device;
    }

    private DiskOverlay Overlay(string device, string below, DiskFormat format, string? name = null)
    {
        string path = In(name ?? device + ".top");
        Qcow2Creator.Create(
            path, Qcow2CreateOptions.Over(below, format == DiskFormat.Qcow2 ? ImageFormat.Qcow2 : ImageFormat.Raw, Size));
        return new DiskOverlay(device, RawFileBackend.Open(path, new RawFileOptions { IsImage = true }));
    }
}
