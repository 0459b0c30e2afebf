using System.Diagnostics;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Storage;

namespace Vmm.Devices.Tests.Virtio.Blk;

public sealed class BlkLimitTests
{
    private const uint Read = 0, Flush = 4, GetId = 8, Discard = 11, WriteZeroes = 13;

    [Fact]
    public void Requests_beyond_the_limit_wait_and_all_are_answered()
    {
        using VirtioBlk device = new(new MemoryDiskBackend(1 << 20));
        device.SetLimit(new RateLimit(0, 50, BurstOperations: 5));
        using BlkGuest guest = new(device);
        long begin = Stopwatch.GetTimestamp();
        PostReads(guest, 20);
        for (int i = 0; i < 20; i++)
        {
            guest.WaitUsed();
        }

        Assert.InRange(Stopwatch.GetElapsedTime(begin).TotalSeconds, 0.29, 15); // 5 at once, 15 at 50 a second
        Assert.Equal(20, device.Counters.Reads);
    }

    [Fact]
    public void Bytes_are_limited()
    {
        using VirtioBlk device = new(new MemoryDiskBackend(1 << 20));
        device.SetLimit(new RateLimit(64 << 10, 0, BurstBytes: 4096));
        using BlkGuest guest = new(device);
        long begin = Stopwatch.GetTimestamp();
        for (int i = 0; i < 5; i++)
        {
            Assert.Equal((0, 4097u), guest.Request(Read, 0, BlkGuest.Data, 4096, dataWritable: true));
        }

        Assert.InRange(Stopwatch.GetElapsedTime(begin).TotalSeconds, 0.24, 15); // 16 KiB at 64 KiB a second
    }

    [Theory]
    [InlineData(Flush)]
    [InlineData(Discard)]
    [InlineData(WriteZeroes)]
    [InlineData(GetId)]
    public void Every_kind_of_request_counts_as_an_operation(uint type)
    {
        using VirtioBlk device = new(new MemoryDiskBackend(1 << 20));
        device.SetLimit(new RateLimit(0, 50, BurstOperations: 5));
        using BlkGuest guest = new(device);
        long begin = Stopwatch.GetTimestamp();
        for (int i = 0; i < 20; i++)
        {
            Assert.Equal(0, RequestOf(guest, type));
        }

        Assert.InRange(Stopwatch.GetElapsedTime(begin).TotalSeconds, 0.29, 15); // 5 at once, 15 at 50 a second
    }

    [Fact]
    public void Zeros_that_are_written_count_as_bytes_and_a_discard_does_not()
    {
        using VirtioBlk device = new(new MemoryDiskBackend(1 << 20)); // writes its zeros
        device.SetLimit(new RateLimit(64 << 10, 0, BurstBytes: 4096));
        using BlkGuest guest = new(device);
        long begin = Stopwatch.GetTimestamp();
        for (int i = 0; i < 5; i++)
        {
            Assert.Equal(0, RequestOf(guest, WriteZeroes));
        }

        Assert.InRange(Stopwatch.GetElapsedTime(begin).TotalSeconds, 0.24, 15); // 16 KiB at 64 KiB a second
        device.SetLimit(new RateLimit(1, 0, BurstBytes: 1)); // 4 KiB would take an hour
        Assert.Equal(0, RequestOf(guest, Discard));
        Assert.Equal(0, RequestOf(guest, Discard));
    }

    [Fact]
    public void A_limit_that_ends_lets_the_waiting_request_go()
    {
        using VirtioBlk device = new(new MemoryDiskBackend(1 << 20));
        device.SetLimit(new RateLimit(0, 1, BurstOperations: 1));
        using BlkGuest guest = new(device);
        PostReads(guest, 16);
        Thread.Sleep(100);
        Assert.InRange(device.Counters.Reads, 1, 2);
        long begin = Stopwatch.GetTimestamp();
        device.SetLimit(null);
        for (int i = 0; i < 16; i++)
        {
            guest.WaitUsed();
        }

        Assert.InRange(Stopwatch.GetElapsedTime(begin).TotalSeconds, 0, 10); // 15 s with the limit
    }

    [Fact]
    public void A_reset_does_not_wait_for_the_limit()
    {
        using VirtioBlk device = new(new MemoryDiskBackend(1 << 20));
        device.SetLimit(new RateLimit(0, 1, BurstOperations: 1));
        using BlkGuest guest = new(device);
        for (int round = 0; round < 5; round++)
        {
            PostReads(guest, 10);
            Thread.Sleep(20);
            long begin = Stopwatch.GetTimestamp();
            device.Reset();
            Assert.InRange(Stopwatch.GetElapsedTime(begin).TotalSeconds, 0, 5);
            guest.Activate();
        }

        device.SetLimit(null);
        Assert.Equal(0, guest.Request(Read, 0, BlkGuest.Data, 512, dataWritable: true).Status);
    }

    // Of 8 sectors, where the type has a range.
    private static byte RequestOf(BlkGuest guest, uint type)
    {
        if (type is Discard or WriteZeroes)
        {
            return guest.RequestRange(type, 0, 8, 0);
        }

        int length = type == GetId ? 20 : 0;
        return (byte)guest.Request(type, 0, length == 0 ? 0 : BlkGuest.Data, length, dataWritable: true).Status;
    }

    private static void PostReads(BlkGuest guest, int count)
    {
        for (int i = 0; i < count; i++)
        {
            guest.Post((guest.PutHeader(Read, 0, i), 16, false), (BlkGuest.Data, 512, true), (guest.PutStatus(i), 1, true));
        }

        guest.Kick();
    }
}
