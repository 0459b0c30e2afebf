using System.Buffers.Binary;
using System.Text;
using Vmm.Devices.Virtio.Blk;
using Vmm.Storage;

namespace Vmm.Devices.Tests.Virtio.Blk;

public sealed class VirtioBlkTests
{
    private const int Capacity = 1 << 20;
    private const ulong Sectors = Capacity / 512;

    private static BlkGuest NewGuest(out MemoryDiskBackend disk, ulong features = ulong.MaxValue, bool readOnly = false)
    {
        disk = new MemoryDiskBackend(Capacity, readOnly);
        Random random = new(1);
        random.NextBytes(disk.Content);
        return new BlkGuest(new VirtioBlk(disk, new() { Serial = "VMM-0001" }), features);
    }

    /// <summary>The fault this found: the stop event stays signalled while the queue drains, and ended each sleep at once.</summary>
    [Fact]
    public void An_IO_thread_sleeps_while_a_reset_waits_for_storage_that_hangs()
    {
        FaultyDisk disk = new(new MemoryDiskBackend(1 << 20)) { Hold = true };
        using VirtioBlk device = new(disk);
        using BlkGuest guest = new(device);
        guest.Post((guest.PutHeader(0, 0), 16, false), (BlkGuest.Data, 512, true), (guest.PutStatus(), 1, true));
        guest.Kick();
        Assert.True(SpinWait.SpinUntil(() => disk.Waits > 0, 20_000));
        Thread reset = new(device.Reset);
        reset.Start();
        long begin = Environment.TickCount64;
        while (Environment.TickCount64 - begin < 300)
        {
            guest.Kick(); // a doorbell that nobody takes any more
            Thread.Sleep(10);
        }

        int waits = disk.Waits;
        disk.Hold = false;
        Assert.True(reset.Join(20_000));
        Assert.InRange(waits, 1, 300); // it went round thousands of times
    }

    [Fact]
    public void Read_returns_the_sectors_and_counts_the_status_byte()
    {
        using BlkGuest guest = NewGuest(out MemoryDiskBackend disk);
        Assert.Equal((0, 4097u), guest.Request(0, 3, BlkGuest.Data, 4096, dataWritable: true));
        Assert.True(guest.Ram(BlkGuest.Data, 4096).SequenceEqual(disk.Content.AsSpan(3 * 512, 4096)));
    }

    [Fact]
    public void Write_changes_only_its_sectors()
    {
        using BlkGuest guest = NewGuest(out MemoryDiskBackend disk);
        byte[] model = [.. disk.Content];
        Random.Shared.NextBytes(guest.Ram(BlkGuest.Data, 1024));
        guest.Ram(BlkGuest.Data, 1024).CopyTo(model.AsSpan(512));
        Assert.Equal((0, 1u), guest.Request(1, 1, BlkGuest.Data, 1024, dataWritable: false));
        Assert.Equal(model, disk.Content);
    }

    [Fact]
    public void Flush_get_id_and_unknown_types_answer()
    {
        using BlkGuest guest = NewGuest(out _);
        Assert.Equal(0, guest.Request(4, 0, 0, 0, false).Status);
        Assert.Equal((0, 21u), guest.Request(8, 0, BlkGuest.Data, 20, true));
        Assert.Equal("VMM-0001", Encoding.ASCII.GetString(guest.Ram(BlkGuest.Data, 20)).TrimEnd('\0'));
        Assert.Equal(2, guest.Request(99, 0, BlkGuest.Data, 512, true).Status);
    }

    [Theory]
    [InlineData(Sectors, 512)] // first sector after the end
    [InlineData(Sectors - 1, 1024)] // crosses the end
    [InlineData(ulong.MaxValue, 512)] // sector + count wraps
    [InlineData(ulong.MaxValue / 512, 1024)]
    [InlineData(1UL << 55, 512)] // byte offset wraps
    [InlineData(0UL, 100)] // not whole sectors
    public void Transfers_outside_the_disk_fail(ulong sector, int length)
    {
        using BlkGuest guest = NewGuest(out MemoryDiskBackend disk);
        byte[] before = [.. disk.Content];
        Assert.Equal(1, guest.Request(0, sector, BlkGuest.Data, length, true).Status);
        Assert.Equal(1, guest.Request(1, sector, BlkGuest.Data, length, false).Status);
        Assert.Equal(before, disk.Content);
        Assert.Null(guest.NeedsReset);
    }

    [Fact]
    public void Discard_and_write_zeroes_check_range_flags_and_length()
    {
        using BlkGuest guest = NewGuest(out MemoryDiskBackend disk);
        Assert.Equal(0, guest.RequestRange(13, 8, 8, flags: 1));
        Assert.Equal(-1, disk.Content.AsSpan(4096, 4096).IndexOfAnyExcept((byte)0));
        Assert.Equal(0, guest.RequestRange(13, 16, 1, flags: 0));
        Assert.Equal(0, guest.RequestRange(11, 24, 8, flags: 0));
        Assert.Equal(2, guest.RequestRange(11, 24, 8, flags: 1)); // 5.2.6.2: unmap in a discard
        Assert.Equal(2, guest.RequestRange(13, 24, 8, flags: 2)); // unknown flag
        Assert.Equal(1, guest.RequestRange(13, Sectors - 1, 2, flags: 0));
        Assert.Equal(1, guest.RequestRange(11, ulong.MaxValue, 8, flags: 0));
        Assert.Equal(1, guest.RequestRange(13, 0, uint.MaxValue, flags: 0));
        Assert.Equal(1, guest.RequestRange(13, 0, 1, flags: 0, length: 8));
        Assert.Equal(1, guest.RequestRange(13, 0, 1, flags: 0, length: 24));
    }

    [Fact]
    public void Requests_that_were_not_negotiated_are_unsupported()
    {
        using BlkGuest guest = NewGuest(out _, features: 0);
        Assert.Equal(2, guest.RequestRange(11, 0, 8, 0));
        Assert.Equal(2, guest.RequestRange(13, 0, 8, 0));
    }

    [Fact]
    public void A_read_only_disk_refuses_every_change()
    {
        using BlkGuest guest = NewGuest(out MemoryDiskBackend disk, readOnly: true);
        byte[] before = [.. disk.Content];
        Assert.Equal(1UL << 5, guest.Device.DeviceFeatures & (1UL << 5));
        Assert.Equal(1, guest.Request(1, 0, BlkGuest.Data, 512, false).Status);
        Assert.Equal(2, guest.RequestRange(13, 0, 8, 0));
        Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
        Assert.Equal(before, disk.Content);
    }

    [Fact]
    public void Header_data_and_status_may_be_split_anywhere()
    {
        using BlkGuest guest = NewGuest(out MemoryDiskBackend disk);
        ulong header = guest.PutHeader(1, 5);
        Random.Shared.NextBytes(guest.Ram(BlkGuest.Data, 1024));
        // Header in three pieces, the last one is not alone: copy it in front of the data.
        guest.Ram(header + 10, 6).CopyTo(guest.Ram(BlkGuest.Data - 6, 6));
        ulong status = guest.PutStatus();
        guest.Post((header, 3, false), (header + 3, 7, false), (BlkGuest.Data - 6, 6 + 100, false), (BlkGuest.Data + 100, 924, false),
            (status, 1, true));
        guest.Kick();
        guest.WaitUsed();
        Assert.Equal(0, guest.Ram(status, 1)[0]);
        Assert.True(disk.Content.AsSpan(5 * 512, 1024).SequenceEqual(guest.Ram(BlkGuest.Data, 1024)));

        // Read with the status behind the data in one buffer.
        header = guest.PutHeader(0, 5);
        guest.Post((header, 16, false), (BlkGuest.Data + 8192, 1025, true));
        guest.Kick();
        Assert.Equal(1025u, guest.WaitUsed().Written);
        Assert.True(disk.Content.AsSpan(5 * 512, 1024).SequenceEqual(guest.Ram(BlkGuest.Data + 8192, 1024)));
        Assert.Equal(0, guest.Ram(BlkGuest.Data + 8192 + 1024, 1)[0]);
    }

    [Fact]
    public void Malformed_chains_ask_for_a_reset_and_a_reset_heals()
    {
        using BlkGuest guest = NewGuest(out _);
        (ulong, int, bool)[][] broken =
        [
            [(0x4000, 16, false)], // no status
            [(0x4000, 8, false), (0x8000, 1, true)], // half a header
            [(0x8000, 1, true)], // no header
            [(0x4000, 16, false), (BlkGuest.RamBytes - 100, 512, true), (0x8000, 1, true)], // data runs out of RAM
            [(ulong.MaxValue - 8, 16, false), (0x8000, 1, true)], // wraps
        ];
        foreach ((ulong, int, bool)[] chain in broken)
        {
            guest.PutHeader(0, 0);
            guest.Post(chain);
            guest.Kick();
            Assert.Contains("malformed", guest.WaitNeedsReset(), StringComparison.Ordinal);
            guest.Device.Reset();
            guest.Activate();
            Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
        }

        guest.WriteDescriptor(7, 0x4000, 16, 1, 7); // loops
        guest.MakeAvailable(7);
        guest.Kick();
        guest.WaitNeedsReset();
        guest.Device.Reset();
        guest.Activate();
        guest.SetAvailIndex(0x8000); // more chains than descriptors
        guest.Kick();
        guest.WaitNeedsReset();
    }

    [Fact]
    public void Host_errors_reach_the_guest()
    {
        FaultyDisk disk = new(new MemoryDiskBackend(Capacity));
        using BlkGuest guest = new(new VirtioBlk(disk));
        disk.Answer = DiskStatus.IoError;
        Assert.Equal((1, 1u), guest.Request(0, 0, BlkGuest.Data, 512, true));
        Assert.Equal(1, guest.Request(4, 0, 0, 0, false).Status);
        disk.Answer = DiskStatus.NoSpace;
        Assert.Equal(1, guest.Request(1, 0, BlkGuest.Data, 512, false).Status);
        disk.Answer = DiskStatus.NotSupported;
        Assert.Equal(2, guest.RequestRange(13, 0, 8, 0));
        disk.Answer = DiskStatus.Ok;
        Assert.Equal(0, guest.Request(1, 0, BlkGuest.Data, 512, false).Status);
    }

    [Fact]
    public void Write_through_flushes_before_a_write_is_done()
    {
        FaultyDisk disk = new(new MemoryDiskBackend(Capacity));
        using BlkGuest guest = new(new VirtioBlk(disk));
        Assert.Equal(0, guest.Request(1, 0, BlkGuest.Data, 512, false).Status);
        Assert.Equal(0, disk.Flushes);
        guest.Device.WriteConfig(32, [0]);
        Assert.Equal(0, guest.Request(1, 0, BlkGuest.Data, 512, false).Status);
        Assert.Equal(1, disk.Flushes);
        guest.Device.Reset(); // back to write-back
        guest.Activate();
        Assert.Equal(0, guest.Request(1, 0, BlkGuest.Data, 512, false).Status);
        Assert.Equal(1, disk.Flushes);

        using BlkGuest without = new(new VirtioBlk(disk), features: 0); // no FLUSH: every write is stable
        Assert.Equal(0, without.Request(1, 0, BlkGuest.Data, 512, false).Status);
        Assert.Equal(2, disk.Flushes);
    }

    [Fact]
    public void Config_space_tells_size_limits_and_cache_mode()
    {
        using VirtioBlk device = new(new MemoryDiskBackend(Capacity), new() { QueueCount = 3, QueueSize = 128 });
        byte[] config = new byte[device.ConfigLength + 8];
        device.ReadConfig(0, config);
        Assert.Equal(Sectors, BinaryPrimitives.ReadUInt64LittleEndian(config));
        Assert.Equal(126u, BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(12)));
        Assert.Equal(512u, BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(20)));
        Assert.Equal(3, BinaryPrimitives.ReadUInt16LittleEndian(config.AsSpan(34)));
        Assert.Equal(3, device.QueueSizes.Count);
        device.WriteConfig(32, [0]);
        device.WriteConfig(0, new byte[8]);
        device.WriteConfig(int.MaxValue, [1, 2, 3]);
        byte[] after = new byte[config.Length];
        device.ReadConfig(0, after);
        Assert.Equal(0, after[32]);
        after[32] = 1;
        Assert.Equal(config, after);
    }

    [Theory]
    [InlineData(0, 64, 1, "")]
    [InlineData(1, 63, 1, "")]
    [InlineData(1, 64, 0, "")]
    [InlineData(1, 64, 1, "123456789012345678901")]
    public void Options_out_of_range_are_refused(int queues, int size, int threads, string serial)
    {
        using MemoryDiskBackend disk = new(512);
        Assert.Throws<ArgumentException>(
            () => new VirtioBlk(disk, new() { QueueCount = queues, QueueSize = size, IoThreads = threads, Serial = serial }));
    }
}
