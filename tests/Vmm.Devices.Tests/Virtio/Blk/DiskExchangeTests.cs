using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Storage;
using Vmm.Testing.Virtio;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>Another disk comes behind a device that works: the driver loses nothing, and whoever else holds the device goes on holding
/// it.</summary>
public sealed class DiskExchangeTests
{
    private const int Capacity = 4 << 20;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20), s_impatience = TimeSpan.FromMilliseconds(60);

    /// <summary>The whole way: before the mirror, through it, and at the target, with a driver that never pauses.</summary>
    [Fact]
    public async Task A_disk_is_copied_and_exchanged_while_its_driver_writes()
    {
        MemoryDiskBackend source = new(Capacity), target = new(Capacity);
        new Random(1).NextBytes(source.Content);
        VirtioBlk device = new(source);
        using BlkGuest guest = new(device);
        byte[] model = (byte[])source.Content.Clone();
        using Driver driver = new(guest, model);
        using DiskMirror mirror = new(source, target);
        await device.ExchangeAsync(mirror, s_patience).WaitAsync(s_patience);
        Assert.Same(mirror, device.Disk);
        mirror.Start(bytesPerSecond: 20 << 20);
        driver.RunUntil(() => mirror.Report.State == MirrorState.Mirrored);
        mirror.Seal();
        await device.ExchangeAsync(target, s_patience, () => mirror.Finish()).WaitAsync(s_patience);
        byte[] old = (byte[])source.Content.Clone();
        driver.RunUntil(driver.After(30));
        driver.Dispose();
        Assert.Equal(model, target.Content);
        Assert.Equal(old, source.Content); // nobody writes there any more
        Assert.NotEqual(model, source.Content);
        Assert.Equal((0, 0), (device.Counters.InFlight, device.Counters.Held));
    }

    [Fact]
    public async Task A_copy_that_is_given_up_leaves_the_disk_where_it_was()
    {
        MemoryDiskBackend source = new(Capacity), target = new(Capacity);
        VirtioBlk device = new(source);
        using BlkGuest guest = new(device);
        byte[] model = new byte[Capacity];
        using Driver driver = new(guest, model);
        using DiskMirror mirror = new(source, target);
        for (int round = 0; round < 2; round++)
        {
            using DiskMirror next = new(source, target);
            await device.ExchangeAsync(next, s_patience).WaitAsync(s_patience);
            next.Start(bytesPerSecond: 1 << 20);
            driver.RunUntil(driver.After(20));
            await device.ExchangeAsync(next.End(), s_patience).WaitAsync(s_patience);
            Assert.Same(source, device.Disk);
        }

        driver.RunUntil(driver.After(20));
        driver.Dispose();
        Assert.Equal(model, source.Content);
    }

    [Fact]
    public async Task A_disk_that_hangs_is_not_exchanged_and_loses_nothing()
    {
        FaultyDisk source = new(new MemoryDiskBackend(Capacity)) { Hold = true };
        using MemoryDiskBackend target = new(Capacity);
        VirtioBlk device = new(source);
        using BlkGuest guest = new(device);
        guest.Post((guest.PutHeader(0, 0), 16, false), (BlkGuest.Data, 512, true), (guest.PutStatus(), 1, true));
        guest.Kick();
        Assert.True(SpinWait.SpinUntil(() => source.Holding == 1, 20_000));
        bool committed = false;
        await Assert.ThrowsAsync<TimeoutException>(() => device.ExchangeAsync(target, s_impatience, () => committed = true));
        Assert.False(committed);
        Assert.Same(source, device.Disk);
        source.Hold = false;
        guest.WaitUsed();
        Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
        await device.ExchangeAsync(target, s_patience).WaitAsync(s_patience);
        Assert.Equal(1, source.Closed);
        source.Dispose();
    }

    [Fact]
    public async Task A_commit_that_fails_leaves_the_old_disk()
    {
        MemoryDiskBackend source = new(Capacity);
        using MemoryDiskBackend target = new(Capacity);
        VirtioBlk device = new(source);
        using BlkGuest guest = new(device);
        await Assert.ThrowsAsync<InvalidDataException>(
            () => device.ExchangeAsync(target, s_patience, () => throw new InvalidDataException()));
        guest.Ram(BlkGuest.Data, 512).Fill(5);
        Assert.Equal(0, guest.Request(1, 0, BlkGuest.Data, 512, false).Status);
        Assert.Equal((5, 0), (source.Content[0], target.Content[0]));
    }

    [Fact]
    public async Task A_new_disk_without_resources_leaves_the_old_one()
    {
        MemoryDiskBackend source = new(Capacity);
        VirtioBlk device = new(source);
        using BlkGuest guest = new(device);
        using Unmakeable target = new();
        await Assert.ThrowsAsync<BlockException>(() => device.ExchangeAsync(target, s_patience));
        Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
    }

    /// <summary>A VM that is paused stays so; what its driver asked for is done at the new disk when it goes on.</summary>
    [Fact]
    public async Task A_held_device_stays_held_over_an_exchange()
    {
        MemoryDiskBackend source = new(Capacity), target = new(Capacity);
        VirtioBlk device = new(source);
        using BlkGuest guest = new(device);
        Assert.True(device.TryHold(s_patience));
        guest.Ram(BlkGuest.Data, 512).Fill(6);
        guest.Post((guest.PutHeader(1, 0), 16, false), (BlkGuest.Data, 512, false), (guest.PutStatus(), 1, true));
        guest.Kick();
        await device.ExchangeAsync(target, s_patience).WaitAsync(s_patience);
        Thread.Sleep(30);
        Assert.False(guest.TryTakeUsed(out _, out _));
        device.Resume();
        guest.WaitUsed();
        Assert.Equal((0, 6), (source.Content[0], target.Content[0]));
    }

    /// <summary>A driver that resets its device finds the mirror again behind the next activation.</summary>
    [Fact]
    public async Task A_reset_of_the_driver_keeps_the_mirror()
    {
        MemoryDiskBackend source = new(Capacity), target = new(Capacity);
        VirtioBlk device = new(source);
        using BlkGuest guest = new(device);
        using DiskMirror mirror = new(source, target);
        await device.ExchangeAsync(mirror, s_patience);
        mirror.Start();
        Assert.True(SpinWait.SpinUntil(() => mirror.Report.State == MirrorState.Mirrored, s_patience));
        device.Reset();
        guest.Activate();
        guest.Ram(BlkGuest.Data, 512).Fill(7);
        Assert.Equal(0, guest.Request(1, 0, BlkGuest.Data, 512, false).Status);
        Assert.Equal((7, 7), (source.Content[0], target.Content[0]));
        device.Reset(); // and a device without a driver changes its disk at once
        await device.ExchangeAsync(mirror.End(), s_patience).WaitAsync(s_patience);
    }

    /// <summary>Two threads: neither goes on before both are there.</summary>
    [Fact]
    public async Task Every_thread_goes_over_and_none_before_the_others()
    {
        MemoryDiskBackend source = new(Capacity), target = new(Capacity);
        VirtioBlk device = new(source, new VirtioBlkOptions { QueueCount = 2, IoThreads = 2 });
        using BlkGuest guest = new(device, activate: false);
        using EventFd bell = new();
        Assert.True(Virtqueue.TryCreate(
            guest.Memory, new(BlkGuest.Size, new(0x10000), new(0x12000), new(0x14000)), guest.Features, out Virtqueue? second, out _));
        VirtioActivation one = guest.Activation();
        device.Activate(one with { Queues = [one.Queues[0], new ActiveQueue(second!, bell)] });
        byte[] model = new byte[Capacity];
        using Driver driver = new(guest, model);
        for (int round = 0; round < 30; round++)
        {
            IDiskBackend next = ReferenceEquals(device.Disk, source) ? target : source;
            await device.ExchangeAsync(next, s_patience, () =>
            {
                Assert.Equal(0, device.Counters.InFlight);
                (next == target ? source : target).Content.CopyTo(((MemoryDiskBackend)next).Content, 0);
            }).WaitAsync(s_patience);
        }

        driver.Dispose();
        Assert.Equal(model, source.Content);
        target.Dispose();
    }

    /// <summary>Writes one request after the other, and keeps a model of what it wrote.</summary>
    private sealed class Driver : IDisposable
    {
        private readonly Thread _thread;
        private volatile bool _stop;
        private volatile int _writes;
        private Exception? _failure;

        internal Driver(BlkGuest guest, byte[] model)
        {
            _thread = new Thread(() => Run(guest, model));
            _thread.Start();
        }

        internal Func<bool> After(int writes)
        {
            int begin = _writes;
            return () => _writes >= begin + writes;
        }

        internal void RunUntil(Func<bool> done) => Assert.True(
            SpinWait.SpinUntil(() => _failure is not null || done(), s_patience) && _failure is null, $"{_failure}");

        public void Dispose()
        {
            _stop = true;
            _thread.Join();
            Assert.Null(_failure);
        }

        private void Run(BlkGuest guest, byte[] model)
        {
            Random random = new(3);
            try
            {
                while (!_stop)
                {
                    int sectors = random.Next(1, 64), at = random.Next((Capacity / 512) - sectors), length = sectors * 512;
                    Span<byte> data = guest.Ram(BlkGuest.Data, length);
                    random.NextBytes(data);
                    Assert.Equal(0, guest.Request(1, (ulong)at, BlkGuest.Data, length, false).Status);
                    data.CopyTo(model.AsSpan(at * 512));
                    at = random.Next((Capacity / 512) - sectors);
                    Assert.Equal(0, guest.Request(0, (ulong)at, BlkGuest.Data, length, true).Status);
                    Assert.True(data.SequenceEqual(model.AsSpan(at * 512, length)));
                    _writes++;
                }
            }
            catch (Exception failure)
            {
                _failure = failure;
            }
        }
    }

    private sealed class Unmakeable : IDiskBackend
    {
        public BlockGeometry Geometry => new(Capacity, 512, 512, ReadOnly: false, DiskAbilities.None);

        public IBlockNode CreateNode(Io.IoLoop loop, int depth) => throw new BlockException(BlockErrorKind.Io, "no more rings");

        public void Dispose() { }
    }
}
