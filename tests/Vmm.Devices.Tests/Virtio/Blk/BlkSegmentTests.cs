using System.Buffers.Binary;
using Vmm.Devices.Virtio.Blk;
using Vmm.Storage;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>Discards and write-zeroes of several segments (virtio 1.2 section 5.2.6).</summary>
public sealed class BlkSegmentTests
{
    private const int Capacity = 1 << 20, Most = 16;
    private const uint Discard = 11, WriteZeroes = 13;

    [Fact]
    public void The_driver_is_told_how_many_segments_a_request_takes()
    {
        using VirtioBlk device = new(new MemoryDiskBackend(Capacity));
        byte[] config = new byte[device.ConfigLength];
        device.ReadConfig(0, config);
        Assert.Equal((uint)Most, BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(40)));
        Assert.Equal((uint)Most, BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(52)));
        using BlkGuest guest = new(device);
        (ulong, uint, uint)[] ranges = [.. Enumerable.Range(0, Most + 1).Select(i => ((ulong)i * 8, 8u, 0u))];
        Assert.Equal(0, guest.RequestRanges(Discard, ranges.AsSpan(0, Most)));
        Assert.Equal(1, guest.RequestRanges(Discard, ranges));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Random_segments_zero_exactly_what_they_name(int seed)
    {
        MemoryDiskBackend disk = new(Capacity);
        Random random = new(seed);
        using BlkGuest guest = new(new VirtioBlk(disk));
        for (int round = 0; round < 100; round++)
        {
            random.NextBytes(disk.Content);
            byte[] model = [.. disk.Content];
            (ulong Sector, uint Sectors, uint Flags)[] ranges = new (ulong, uint, uint)[random.Next(1, Most + 1)];
            bool sound = true;
            for (int i = 0; i < ranges.Length; i++)
            {
                uint sectors = (uint)random.Next(0, 40);
                ulong at = (ulong)random.Next(Capacity / 512);
                ranges[i] = (at, sectors, (uint)random.Next(2));
                sound &= at + sectors <= Capacity / 512;
            }

            if (sound)
            {
                foreach ((ulong sector, uint sectors, _) in ranges)
                {
                    model.AsSpan((int)sector * 512, (int)sectors * 512).Clear();
                }
            }

            Assert.Equal(sound ? 0 : 1, guest.RequestRanges(WriteZeroes, ranges)); // one bad segment, and nothing is done
            Assert.Equal(model, disk.Content);
        }
    }

    [Fact]
    public void A_request_ends_with_the_segment_that_fails_and_others_go_on_beside_it()
    {
        FaultyDisk disk = new(new MemoryDiskBackend(Capacity)) { DelayRounds = 2 };
        using BlkGuest guest = new(new VirtioBlk(disk));
        Assert.Equal(0, guest.RequestRanges(WriteZeroes, (0UL, 8u, 0u), (8UL, 8u, 0u), (16UL, 8u, 0u)));
        disk.Answer = DiskStatus.IoError;
        Assert.Equal(1, guest.RequestRanges(WriteZeroes, (0UL, 8u, 0u), (8UL, 8u, 0u), (16UL, 8u, 0u)));
        disk.Answer = DiskStatus.Ok;
        Assert.Equal(0, guest.RequestRanges(WriteZeroes, (0UL, 8u, 0u), (8UL, 8u, 0u)));
        Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
    }

    [Fact]
    public void Write_through_makes_each_segment_stable()
    {
        FaultyDisk disk = new(new MemoryDiskBackend(Capacity));
        using BlkGuest guest = new(new VirtioBlk(disk), features: ~(1UL << 9)); // no FLUSH
        Assert.Equal(0, guest.RequestRanges(WriteZeroes, (0UL, 8u, 0u), (8UL, 8u, 1u)));
        Assert.Equal(2, disk.Flushes);
    }

    /// <summary>Virtio 1.2 section 2.4: after a reset the device does not touch what the driver gave it before.</summary>
    [Fact]
    public void A_reset_between_two_segments_ends_after_them_and_writes_nothing_later()
    {
        FaultyDisk disk = new(new MemoryDiskBackend(Capacity)) { Hold = true };
        using VirtioBlk device = new(disk);
        using BlkGuest guest = new(device);
        Span<byte> ranges = guest.Ram(BlkGuest.Data, 48);
        for (int i = 0; i < 3; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(ranges[(16 * i)..], (ulong)i * 8);
            BinaryPrimitives.WriteUInt64LittleEndian(ranges[((16 * i) + 8)..], 8);
        }

        guest.Post((guest.PutHeader(WriteZeroes, 0), 16, false), (BlkGuest.Data, 48, false), (guest.PutStatus(), 1, true));
        guest.Kick();
        Assert.True(SpinWait.SpinUntil(() => disk.Holding == 1, 20_000));
        Assert.False(device.TryReset(TimeSpan.FromMilliseconds(50)));
        disk.Hold = false;
        Assert.True(device.TryReset(TimeSpan.FromSeconds(20)));
        byte[] after = [.. guest.Ram(0, BlkGuest.RamBytes)];
        Thread.Sleep(50);
        Assert.True(guest.Ram(0, BlkGuest.RamBytes).SequenceEqual(after));
        guest.Activate();
        Assert.Equal(0, guest.RequestRanges(WriteZeroes, (0UL, 8u, 0u), (8UL, 8u, 0u)));
    }
}
