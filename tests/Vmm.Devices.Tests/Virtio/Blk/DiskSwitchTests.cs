using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Io;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>
/// Another chain of the same files comes behind devices that work: what is below is the disk of one instant, nothing is lost, and whatever
/// fails leaves everything as it was.
/// </summary>
public sealed class DiskSwitchTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20), s_impatience = TimeSpan.FromMilliseconds(60);

    private readonly SwitchFolder _files = new();

    public void Dispose() => _files.Dispose();

    [Theory]
    [InlineData("raw", 1, 1)]
    [InlineData("raw", 4, 4)]
    [InlineData("qcow2", 1, 1)]
    [InlineData("qcow2", 2, 2)]
    [InlineData("qcow2", 4, 2)]
    public void Each_base_is_the_disk_of_one_instant(string format, int queues, int threads)
    {
        IDetachableDisk disk = format == "raw" ? _files.Raw("disk", out byte[] model) : _files.Qcow2("disk", out model);
        VirtioBlk device = Device(disk, queues, threads);
        List<(string Name, string Format, Instant Was)> bases = [];
        using (SwitchLoad load = new(device, model))
        {
            string below = "disk", belowFormat = format;
            for (int round = 0; round < 6; round++)
            {
                load.RunFor(40);
                RawImageFile overlay = _files.Overlay($"top{round}", below, belowFormat);
                DetachedDisk? old = null;
                DiskSwitch.Run(
                    [new(device, files => Qcow2Disk.Over([new ImageLayer(overlay, ImageFormat.Qcow2), .. (old = files).Layers]))],
                    s_patience,
                    () => bases.Add((below, belowFormat, load.Now())));
                ((RawImageFile)old!.Layers[0].File).BecomeBase();
                (below, belowFormat) = ($"top{round}", "qcow2");
            }

            load.RunFor(40);
        }

        Assert.Equal((0, 0), (device.Counters.InFlight, device.Counters.Held));
        bases.Add(("top5", "qcow2", new Instant(model, [])));
        foreach ((string name, string its, Instant was) in bases)
        {
            was.AssertIs(_files.Content(name, its));
            if (its == "qcow2")
            {
                QemuImg.Run("check", _files.PathOf(name));
            }
        }
    }

    /// <summary>A driver that writes both disks in turn never finds the second ahead of the first below the overlays.</summary>
    [Fact]
    public void Two_disks_are_switched_at_one_instant()
    {
        VirtioBlk one = new(_files.Raw("one", out _)), two = new(_files.Qcow2("two", out _));
        using (BlkGuest first = new(one))
        using (BlkGuest second = new(two))
        {
            bool stop = false;
            Thread driver = new(() =>
            {
                for (int i = 1; !Volatile.Read(ref stop); i++)
                {
                    Put(first, i);
                    Put(second, i);
                }
            });
            driver.Start();
            Assert.True(SpinWait.SpinUntil(() => one.Counters.InFlight >= 0 && second.Interrupts > 20, s_patience));
            RawImageFile a = _files.Overlay("one.top", "one", "raw"), b = _files.Overlay("two.top", "two", "qcow2");
            DiskSwitch.Run([SwitchFolder.Snapshot(one, a), SwitchFolder.Snapshot(two, b)], s_patience);
            int seen = second.Interrupts;
            Assert.True(SpinWait.SpinUntil(() => second.Interrupts > seen + 20, s_patience));
            Volatile.Write(ref stop, true);
            driver.Join();
        }

        int inFirst = BitConverter.ToInt32(_files.Content("one", "raw")), inSecond = BitConverter.ToInt32(_files.Content("two", "qcow2"));
        Assert.InRange(inFirst - inSecond, 0, 1);
        Assert.True(BitConverter.ToInt32(_files.Content("two.top", "qcow2")) > inSecond);

        static void Put(BlkGuest guest, int value)
        {
            BitConverter.TryWriteBytes(guest.Ram(BlkGuest.Data, 4), value);
            Assert.Equal(0, guest.Request(1, 0, BlkGuest.Data, 512, false).Status);
        }
    }

    [Theory]
    [InlineData("refused")]
    [InlineData("second")]
    [InlineData("small")]
    [InlineData("node")]
    [InlineData("commit")]
    public void What_fails_leaves_the_old_disks_and_their_requests(string step)
    {
        IDetachableDisk disk = _files.Qcow2("disk", out byte[] model);
        VirtioBlk device = Device(disk, 2, 2);
        VirtioBlk other = new(_files.Raw("other", out _));
        using (SwitchLoad load = new(device, model))
        using (BlkGuest guest = new(other))
        {
            _files.Create("top", "disk", "qcow2", step == "small" ? SwitchFolder.Capacity / 2 : (ulong)SwitchFolder.Capacity);
            for (int round = 0; round < 5; round++)
            {
                load.RunFor(20);
                using RawImageFile overlay = new(RawFileBackend.Open(_files.PathOf("top"), new RawFileOptions { IsImage = true }));
                DiskSwitchPart part = SwitchFolder.Snapshot(device, overlay), second = new(other, old => step switch
                {
                    "second" => throw new BlockException(BlockErrorKind.Io, "no"),
                    "node" => new Unreachable(old.Reopen(), fails: 1),
                    _ => old.Reopen(),
                });
                part = step == "refused" ? part with { Next = _ => throw new BlockException(BlockErrorKind.Io, "no") } : part;
                Assert.ThrowsAny<Exception>(() => DiskSwitch.Run(
                    [part, second], s_patience, step == "commit" ? () => throw new InvalidDataException() : null));
                Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
            }

            load.RunFor(20);
        }

        new Instant(model, []).AssertIs(_files.Content("disk", "qcow2"));
        QemuImg.Run("check", _files.PathOf("disk"));
        QemuImg.Run("check", _files.PathOf("top"));
        Assert.Equal((0, 0), (device.Counters.InFlight, device.Counters.Held));
    }

    /// <summary>The way back is closed, too: the guest gets errors, or is made to wait, and nothing hangs.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_disk_that_cannot_be_opened_again_fails_its_requests(bool waits)
    {
        Unreachable disk = new(_files.Raw("disk", out _), fails: int.MaxValue) { IsLost = true };
        using ManualResetEventSlim stalled = new();
        VirtioBlk device = new(
            disk, new VirtioBlkOptions { Waits = waits ? DiskWaits.IoError : DiskWaits.None }, stalled: _ => stalled.Set());
        using BlkGuest guest = new(device);
        Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
        BlockException lost = Assert.Throws<BlockException>(() => DiskSwitch.Run(
            [new(device, _ => throw new BlockException(BlockErrorKind.Io, "the overlay is none"))], s_patience));
        Assert.Contains("the overlay is none; and after that disk could not be opened again", lost.Message, StringComparison.Ordinal);
        if (waits)
        {
            guest.Post((guest.PutHeader(0, 0), 16, false), (BlkGuest.Data, 512, true), (guest.PutStatus(), 1, true));
            guest.Kick();
            Assert.True(stalled.Wait(s_patience));
        }
        else
        {
            Assert.Equal(1, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
        }

        Assert.Contains("has lost its disk", Assert.Throws<BlockException>(
            () => DiskSwitch.Run([new(device, old => old.Reopen())], s_patience)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_device_that_is_gone_is_not_switched()
    {
        VirtioBlk device = new(_files.Raw("disk", out _));
        device.Dispose();
        Assert.Throws<ObjectDisposedException>(() => DiskSwitch.Run([new(device, old => old.Reopen())], s_patience));
    }

    [Fact]
    public void A_disk_that_hangs_is_not_switched_and_loses_nothing()
    {
        using IDetachableDisk raw = _files.Raw("disk", out _);
        FaultyDisk slow = new(raw) { Hold = true };
        VirtioBlk device = new(new Unreachable(raw, fails: 0) { Instead = slow });
        using BlkGuest guest = new(device);
        guest.Post((guest.PutHeader(0, 0), 16, false), (BlkGuest.Data, 512, true), (guest.PutStatus(), 1, true));
        guest.Kick();
        Assert.True(SpinWait.SpinUntil(() => slow.Holding == 1, 20_000));
        for (int round = 0; round < 3; round++)
        {
            Assert.Throws<TimeoutException>(() => DiskSwitch.Run([new(device, old => old.Reopen())], s_impatience));
        }

        slow.Hold = false;
        guest.WaitUsed();
        Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
    }

    [Fact]
    public void What_cannot_be_made_stable_is_not_switched()
    {
        using IDetachableDisk raw = _files.Raw("disk", out _);
        FaultyDisk bad = new(raw);
        VirtioBlk device = new(new Unreachable(raw, fails: 0) { Instead = bad });
        using BlkGuest guest = new(device);
        bad.Answer = DiskStatus.NoSpace;
        BlockException refused = Assert.Throws<BlockException>(
            () => DiskSwitch.Run([new(device, _ => throw new InvalidDataException())], s_patience));
        Assert.Equal(DiskStatus.NoSpace, refused.Status);
        bad.Answer = DiskStatus.Ok;
        Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
    }

    [Fact]
    public void A_held_device_stays_held_over_a_switch()
    {
        VirtioBlk device = new(_files.Raw("disk", out byte[] content));
        using BlkGuest guest = new(device);
        Assert.True(device.TryHold(s_patience));
        guest.Ram(BlkGuest.Data, 512).Fill(6);
        guest.Post((guest.PutHeader(1, 0), 16, false), (BlkGuest.Data, 512, false), (guest.PutStatus(), 1, true));
        guest.Kick();
        DiskSwitch.Run([SwitchFolder.Snapshot(device, _files.Overlay("top", "disk", "raw"))], s_patience);
        Thread.Sleep(30);
        Assert.False(guest.TryTakeUsed(out _, out _));
        device.Resume();
        guest.WaitUsed();
        guest.Dispose();
        new Instant(content, []).AssertIs(File.ReadAllBytes(_files.PathOf("disk")));
        Assert.Equal(6, _files.Content("top", "qcow2")[511]);
    }

    /// <summary>A driver may reset its device at any moment, and activate it anew.</summary>
    [Fact]
    public void Resets_meet_every_step()
    {
        VirtioBlk device = new(_files.Raw("disk", out byte[] content));
        using (BlkGuest guest = new(device))
        {
            bool stop = false;
            Thread driver = new(() =>
            {
                while (!Volatile.Read(ref stop))
                {
                    Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
                    device.Reset();
                    guest.Activate();
                }
            });
            driver.Start();
            string below = "disk", format = "raw";
            for (int round = 0; round < 40; round++)
            {
                DiskSwitch.Run([SwitchFolder.Snapshot(device, _files.Overlay($"t{round}", below, format))], s_patience);
                (below, format) = ($"t{round}", "qcow2");
            }

            Volatile.Write(ref stop, true);
            driver.Join();
            Assert.Null(guest.NeedsReset);
        }

        new Instant(content, []).AssertIs(_files.Content("t39", "qcow2"));
    }

    [Fact]
    public void A_disk_without_files_is_refused()
    {
        VirtioBlk device = new(new MemoryDiskBackend(1 << 20));
        using BlkGuest guest = new(device);
        Assert.Contains("without files", Assert.Throws<BlockException>(
            () => DiskSwitch.Run([new(device, old => old.Reopen())], s_patience)).Message, StringComparison.Ordinal);
    }

    private static VirtioBlk Device(IDiskBackend disk, int queues, int threads) => new(
        disk, new VirtioBlkOptions { QueueCount = queues, IoThreads = threads, QueueSize = 16, PollMicroseconds = 0 });

    /// <summary>A disk that makes no nodes at first, or cannot be opened again.</summary>
    private sealed class Unreachable(IDetachableDisk inner, int fails) : IDetachableDisk
    {
        private int _fails = fails;

        public bool IsLost { get; init; }

        public IDiskBackend? Instead { get; init; }

        public BlockGeometry Geometry => inner.Geometry;

        public IBlockNode CreateNode(IoLoop loop, int depth) => !IsLost && _fails-- > 0
            ? throw new BlockException(BlockErrorKind.Io, "no more rings")
            : (Instead ?? inner).CreateNode(loop, depth);

        public DetachedDisk Detach()
        {
            DetachedDisk files = inner.Detach();
            return IsLost ? new DetachedDisk(files.Layers, () => throw new BlockException(BlockErrorKind.Io, "gone")) : files;
        }

        public void Dispose() => inner.Dispose();
    }
}
