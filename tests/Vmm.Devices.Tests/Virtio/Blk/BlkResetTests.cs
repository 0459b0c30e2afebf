using Vmm.Testing;
using System.Buffers.Binary;
using System.Diagnostics;
using Vmm.Devices.Bus;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Storage;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>Resets of a disk whose storage hangs: the status register tells, and no vCPU waits (virtio 1.2 section 2.4).</summary>
public sealed class BlkResetTests : IDisposable
{
    private const ulong Table = 0x1000, Avail = 0x2000, Used = 0x3000, Header = 0x4000, Data = 0x5000, Status = 0x6000;
    private readonly SmallRam _ram = new();
    private readonly FaultyDisk _disk = new(new MemoryDiskBackend(1 << 20));
    private readonly VirtioBlk _blk;
    private readonly VirtioMmio _window;

    public BlkResetTests()
    {
        _blk = new VirtioBlk(_disk);
        _window = new VirtioMmio(_blk, _ram.Memory, new NoLine());
    }

    public void Dispose()
    {
        _disk.Hold = false;
        _window.Dispose();
        _ram.Dispose();
    }

    [Fact]
    public void The_status_reads_zero_only_after_the_last_request_and_no_access_waits_for_it()
    {
        Start();
        Hang();
        long begin = Stopwatch.GetTimestamp();
        Write(0x70, 0);
        Assert.NotEqual(0u, Read(0x70));
        Write(0x70, 1); // a driver that does not wait is not heard
        Write(0x70, 15);
        Assert.NotEqual(0u, Read(0x70));
        Write(0x50, 0);
        Assert.InRange(Stopwatch.GetElapsedTime(begin).TotalSeconds, 0, 15); // one patience of a second, not as long as the storage hangs
        _disk.Hold = false;
        Assert.True(SpinWait.SpinUntil(() => Read(0x70) == 0, 20_000));
        Assert.Equal(0u, Read(0x44)); // the queue is as at first
        Start();
        Request();
        Assert.True(SpinWait.SpinUntil(() => UsedIndex() == 1, 20_000));
    }

    [Fact]
    public void A_reset_of_a_disk_that_works_is_done_at_once()
    {
        Start();
        for (int round = 0; round < 20; round++)
        {
            Request();
            Write(0x70, 0);
            Assert.Equal(0u, Read(0x70));
            Start();
        }
    }

    [Fact]
    public void A_queue_taken_away_from_a_disk_that_hangs_is_not_started_again_before_it_has_stopped()
    {
        Start();
        Hang();
        Write(0x30, 0);
        Write(0x44, 0); // QueueReady off: the device stops and needs a reset
        Assert.Equal(0x40u, Read(0x70) & 0x40);
        Write(0x70, 0);
        Assert.NotEqual(0u, Read(0x70));
        _disk.Hold = false;
        Assert.True(SpinWait.SpinUntil(() => Read(0x70) == 0, 20_000));
    }

    private void Start()
    {
        foreach (ulong part in new[] { Table, Avail, Used })
        {
            Assert.True(_ram.Memory.TryWrite(new(part), new byte[0x1000]));
        }

        Write(0x70, 3);
        Write(0x24, 1);
        Write(0x20, 1); // VERSION_1
        Write(0x70, 11);
        Write(0x30, 0);
        Write(0x38, 16);
        Write(0x80, (uint)Table);
        Write(0x90, (uint)Avail);
        Write(0xA0, (uint)Used);
        Write(0x44, 1);
        Write(0x70, 15);
        Assert.Equal(15u, Read(0x70));
    }

    // A read of one sector.
    private void Request()
    {
        Assert.True(_ram.Memory.TryWrite(new(Header), new byte[16]));
        Describe(0, Header, 16, flags: 1);
        Describe(1, Data, 512, flags: 3);
        Describe(2, Status, 1, flags: 2);
        Assert.True(_ram.Memory.TryReadIndex(new(Avail + 2), out ushort index));
        Assert.True(_ram.Memory.TryWriteIndex(new(Avail + 2), (ushort)(index + 1)));
        Write(0x50, 0);
    }

    private void Hang()
    {
        _disk.Hold = true;
        Request();
        Assert.True(SpinWait.SpinUntil(() => _disk.Holding > 0, 20_000));
    }

    private ushort UsedIndex()
    {
        Assert.True(_ram.Memory.TryReadIndex(new(Used + 2), out ushort index));
        return index;
    }

    private void Describe(int index, ulong at, uint length, ushort flags)
    {
        byte[] d = new byte[16];
        BinaryPrimitives.WriteUInt64LittleEndian(d, at);
        BinaryPrimitives.WriteUInt32LittleEndian(d.AsSpan(8), length);
        BinaryPrimitives.WriteUInt16LittleEndian(d.AsSpan(12), flags);
        BinaryPrimitives.WriteUInt16LittleEndian(d.AsSpan(14), (ushort)(index + 1));
        Assert.True(_ram.Memory.TryWrite(new(Table + (16UL * (ulong)index)), d));
    }

    private uint Read(ulong register)
    {
        byte[] bytes = new byte[4];
        _window.Read(register, bytes);
        return BinaryPrimitives.ReadUInt32LittleEndian(bytes);
    }

    private void Write(ulong register, uint value)
    {
        byte[] bytes = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        _window.Write(register, bytes);
    }

    private sealed class NoLine : IInterruptLine
    {
        public void Set(bool level) { }
    }
}
