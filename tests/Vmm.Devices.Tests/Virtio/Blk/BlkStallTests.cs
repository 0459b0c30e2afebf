using System.Buffers.Binary;
using Vmm.Devices.Virtio.Blk;
using Vmm.State;
using Vmm.Storage;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>A disk that waits for the host instead of failing the driver's requests.</summary>
public sealed class BlkStallTests
{
    private const int Capacity = 1 << 20, Block = 4096;

    [Theory]
    [InlineData(DiskStatus.NoSpace)]
    [InlineData(DiskStatus.IoError)]
    public void A_request_that_failed_is_answered_once_the_host_is_well_again(DiskStatus fault)
    {
        using Host host = new(DiskWaits.NoSpace | DiskWaits.IoError);
        host.Disk.Answer = fault;
        ulong status = host.Write(slot: 0, sector: 0);
        host.AwaitStall();
        Assert.Equal(fault, host.Device.WaitsFor);
        Assert.Equal(0xee, host.Guest.Ram(status, 1)[0]);
        host.GoOn(); // it fails again
        host.AwaitStall();
        host.Disk.Answer = DiskStatus.Ok;
        host.GoOn();
        Assert.Equal(1u, host.Guest.WaitUsed().Written);
        Assert.Equal(0, host.Guest.Ram(status, 1)[0]);
        Assert.Equal(DiskStatus.Ok, host.Device.WaitsFor);
        Assert.Equal(0, host.Guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
    }

    [Theory]
    [InlineData(DiskWaits.NoSpace, DiskStatus.IoError)]
    [InlineData(DiskWaits.IoError, DiskStatus.NoSpace)]
    [InlineData(DiskWaits.None, DiskStatus.NoSpace)]
    public void What_is_to_be_reported_is(DiskWaits waits, DiskStatus fault)
    {
        using Host host = new(waits);
        host.Disk.Answer = fault;
        Assert.Equal(1, host.Guest.Request(1, 0, BlkGuest.Data, 512, false).Status);
        Assert.Equal(DiskStatus.Ok, host.Device.WaitsFor);
        host.Disk.Answer = DiskStatus.Ok;
    }

    [Fact]
    public void A_failed_flush_is_reported_whatever_is_to_wait()
    {
        using Host host = new(DiskWaits.NoSpace | DiskWaits.IoError);
        host.Disk.Answer = DiskStatus.IoError;
        Assert.Equal(1, host.Guest.Request(4, 0, 0, 0, false).Status);
        host.Disk.Answer = DiskStatus.Ok;
    }

    /// <summary>Younger requests that were in flight end; none is taken from the ring until the disk goes on.</summary>
    [Fact]
    public void Nothing_more_is_taken_while_it_waits_and_all_go_on_together()
    {
        using Host host = new(DiskWaits.NoSpace);
        host.Disk.Hold = true;
        host.Write(0, 0);
        host.Write(1, 8);
        Assert.True(SpinWait.SpinUntil(() => host.Disk.Holding == 2, 20_000));
        host.Disk.Answer = DiskStatus.NoSpace;
        host.Disk.Hold = false;
        host.AwaitStall();
        host.Write(2, 16); // stays in the ring
        Assert.True(host.Device.TryHold(TimeSpan.FromSeconds(20)));
        Assert.Equal((0, 2), (host.Device.Counters.InFlight, host.Device.Counters.Held));
        Assert.False(host.Guest.TryTakeUsed(out _, out _));
        host.Disk.Answer = DiskStatus.Ok;
        host.Device.Resume();
        Assert.Equal([0u, 3u, 6u], Enumerable.Range(0, 3).Select(_ => host.Guest.WaitUsed().Head).Order());
        Assert.Equal(3, host.Device.Counters.Writes);
    }

    [Fact]
    public void A_disk_that_waits_is_not_saved_and_says_why()
    {
        using Host host = new(DiskWaits.NoSpace);
        host.Disk.Answer = DiskStatus.NoSpace;
        host.Write(0, 0);
        host.AwaitStall();
        Assert.True(host.Device.TryHold(TimeSpan.FromSeconds(20)));
        StateException refused = Assert.Throws<StateException>(() => host.Device.Save(null!));
        Assert.Contains("no space", refused.Message, StringComparison.Ordinal);
        host.Disk.Answer = DiskStatus.Ok;
        host.Device.Resume();
        host.Guest.WaitUsed();
    }

    [Fact]
    public void A_reset_forgets_what_waits_and_the_device_works_again()
    {
        using Host host = new(DiskWaits.NoSpace);
        host.Disk.Answer = DiskStatus.NoSpace;
        ulong status = host.Write(0, 0);
        host.AwaitStall();
        Assert.True(host.Device.TryReset(TimeSpan.FromSeconds(20)));
        Assert.Equal(DiskStatus.Ok, host.Device.WaitsFor);
        host.Disk.Answer = DiskStatus.Ok;
        host.Guest.Activate();
        Assert.Equal(0, host.Guest.Request(1, 8, BlkGuest.Data, 512, false).Status);
        Assert.Equal(0, host.Guest.Ram(0x5000, 1)[0]);
        _ = status;
    }

    /// <summary>A segment that failed is issued again, those before it are not.</summary>
    [Fact]
    public void A_request_of_several_segments_goes_on_with_the_one_that_failed()
    {
        using Host host = new(DiskWaits.NoSpace);
        host.Disk.Hold = true;
        Span<byte> ranges = host.Guest.Ram(BlkGuest.Data, 48);
        ranges.Clear();
        for (int i = 0; i < 3; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(ranges[(16 * i)..], (ulong)i * 8);
            BinaryPrimitives.WriteUInt32LittleEndian(ranges[((16 * i) + 8)..], 8);
        }

        ulong status = host.Guest.PutStatus();
        host.Guest.Post((host.Guest.PutHeader(13, 0), 16, false), (BlkGuest.Data, 48, false), (status, 1, true));
        host.Guest.Kick();
        Assert.True(SpinWait.SpinUntil(() => host.Disk.Holding == 1, 20_000));
        host.Disk.Answer = DiskStatus.NoSpace;
        host.Disk.Hold = false;
        host.AwaitStall();
        host.Disk.Answer = DiskStatus.Ok;
        host.GoOn();
        host.Guest.WaitUsed();
        Assert.Equal(0, host.Guest.Ram(status, 1)[0]);
    }

    /// <summary>A driver that writes while the host fails at random moments: what it was told is what is on the disk.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Random_faults_cost_no_write_and_double_none(int seed)
    {
        using Host host = new(DiskWaits.NoSpace | DiskWaits.IoError);
        Random random = new(seed);
        byte[] model = new byte[Capacity];
        for (int round = 0; round < 60; round++)
        {
            int posted = random.Next(1, 9);
            for (int i = 0; i < posted; i++)
            {
                int block = random.Next((Capacity / Block / 8) - 1) + (i * (Capacity / Block / 8)); // each its own part of the disk
                Span<byte> data = host.Guest.Ram(BlkGuest.Data + ((ulong)i * Block), Block);
                random.NextBytes(data);
                data.CopyTo(model.AsSpan(block * Block));
                host.Write(i, (ulong)block * 8);
            }

            host.Disk.Answer = random.Next(3) switch { 0 => DiskStatus.NoSpace, 1 => DiskStatus.IoError, _ => DiskStatus.Ok };
            for (int i = 0; i < posted; i++)
            {
                uint head, written;
                while (!host.Guest.TryTakeUsed(out head, out written))
                {
                    if (host.Device.WaitsFor != DiskStatus.Ok)
                    {
                        host.Disk.Answer = random.Next(2) == 0 ? DiskStatus.Ok : host.Disk.Answer;
                        host.GoOn();
                    }

                    Thread.Yield();
                }

                Assert.Equal(1u, written);
            }

            for (int i = 0; i < posted; i++)
            {
                Assert.Equal(0, host.Guest.Ram(host.Guest.PutStatusAddress(i), 1)[0]);
            }

            host.Disk.Answer = DiskStatus.Ok;
            Assert.False(host.Guest.TryTakeUsed(out _, out _));
        }

        Assert.Equal(model, host.Content.Content);
        Assert.Equal(0, host.Device.Counters.Errors);
    }

    private sealed class Host : IDisposable
    {
        private readonly SemaphoreSlim _stalls = new(0);

        internal Host(DiskWaits waits)
        {
            Content = new MemoryDiskBackend(Capacity);
            Disk = new FaultyDisk(Content);
            Device = new VirtioBlk(Disk, new() { Waits = waits }, null, _ => _stalls.Release());
            Guest = new BlkGuest(Device);
        }

        internal MemoryDiskBackend Content { get; }

        internal FaultyDisk Disk { get; }

        internal VirtioBlk Device { get; }

        internal BlkGuest Guest { get; }

        internal void AwaitStall() => Assert.True(_stalls.Wait(20_000), "the disk does not wait");

        internal void GoOn()
        {
            Assert.True(Device.TryHold(TimeSpan.FromSeconds(20)));
            Device.Resume();
        }

        /// <summary>Posts a write of a block; its status address.</summary>
        internal ulong Write(int slot, ulong sector)
        {
            ulong status = Guest.PutStatus(slot);
            Guest.Post(
                (Guest.PutHeader(1, sector, slot), 16, false), (BlkGuest.Data + ((ulong)slot * Block), Block, false), (status, 1, true));
            Guest.Kick();
            return status;
        }

        public void Dispose()
        {
            Disk.Hold = false;
            Disk.Answer = DiskStatus.Ok;
            Guest.Dispose();
            _stalls.Dispose();
        }
    }
}
