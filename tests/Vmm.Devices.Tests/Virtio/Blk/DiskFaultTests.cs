using Vmm.Devices.Virtio.Blk;
using Vmm.Storage;
using Vmm.Testing.Virtio;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>A disk whose host fails it tells so once per episode, whatever the guest asks for.</summary>
public sealed class DiskFaultTests
{
    [Fact]
    public void A_host_that_fails_is_told_of_once_per_kind_and_not_per_request()
    {
        List<DiskStatus> told = [];
        FaultyDisk disk = new(new MemoryDiskBackend(1 << 20));
        using BlkGuest guest = new(new VirtioBlk(disk, null, status =>
        {
            lock (told)
            {
                told.Add(status);
            }
        }));
        Assert.Equal(0, Write(guest));
        foreach (DiskStatus fault in (DiskStatus[])[DiskStatus.NoSpace, DiskStatus.IoError, DiskStatus.NotSupported])
        {
            disk.Answer = fault;
            for (int i = 0; i < 50; i++)
            {
                Assert.NotEqual(0, Write(guest));
            }
        }

        disk.Answer = DiskStatus.Ok;
        Assert.Equal(0, Write(guest));
        lock (told)
        {
            Assert.Equal([DiskStatus.NoSpace, DiskStatus.IoError], told);
        }
    }

    /// <summary>A guest that is gone cannot be answered: what its last writes lost is told of where all faults are.</summary>
    [Theory]
    [InlineData(DiskStatus.Ok)]
    [InlineData(DiskStatus.NoSpace)]
    [InlineData(DiskStatus.IoError)]
    public void A_device_that_ends_flushes_its_disk_and_tells_when_that_fails(DiskStatus fault)
    {
        List<DiskStatus> told = [];
        FaultyDisk disk = new(new MemoryDiskBackend(1 << 20));
        using (BlkGuest guest = new(new VirtioBlk(disk, null, told.Add)))
        {
            Assert.Equal(0, Write(guest));
            Assert.Equal(0, disk.Closed);
            disk.Answer = fault;
        }

        Assert.Equal((1, 1), (disk.Closed, disk.Disposed));
        Assert.Equal(fault == DiskStatus.Ok ? [] : [fault], told);
    }

    [Fact]
    public void What_only_the_guest_does_wrong_is_not_told_of()
    {
        int told = 0;
        using BlkGuest guest = new(new VirtioBlk(new MemoryDiskBackend(1 << 20), null, _ => Interlocked.Increment(ref told)));
        Assert.Equal(1, guest.Request(1, 1UL << 40, BlkGuest.Data, 512, false).Status); // beyond the disk
        Assert.Equal(2, guest.Request(99, 0, BlkGuest.Data, 512, false).Status);
        Assert.Equal(0, Volatile.Read(ref told));
    }

    [Fact]
    public void An_episode_ends_when_a_write_succeeds_but_lasts_a_minute_at_least()
    {
        Clock clock = new();
        List<DiskStatus> told = [];
        DiskFaultEpisodes episodes = new(told.Add, clock);
        episodes.Failed(DiskStatus.NoSpace);
        for (int i = 0; i < 20; i++)
        {
            clock.Seconds++; // full, but blocks that it has are written
            episodes.Written();
            episodes.Failed(DiskStatus.NoSpace);
        }

        Assert.Equal([DiskStatus.NoSpace], told);
        clock.Seconds += 60;
        episodes.Failed(DiskStatus.NoSpace);
        Assert.Equal([DiskStatus.NoSpace, DiskStatus.NoSpace], told);
        clock.Seconds += 3600; // nothing was written since: the same episode
        episodes.Failed(DiskStatus.NoSpace);
        Assert.Equal(2, told.Count);
        episodes.Written();
        episodes.Failed(DiskStatus.NoSpace);
        episodes.Failed(DiskStatus.IoError);
        Assert.Equal([DiskStatus.NoSpace, DiskStatus.IoError], told[2..]);
    }

    private static int Write(BlkGuest guest) => guest.Request(1, 0, BlkGuest.Data, 512, false).Status;

    private sealed class Clock : TimeProvider
    {
        public long Seconds { get; set; }

        public override long TimestampFrequency => 1;

        public override long GetTimestamp() => Seconds;
    }
}
