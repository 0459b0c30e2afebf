using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.Testing;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>A driver for one request queue: builds chains in guest RAM, rings the doorbell, waits for the used ring.</summary>
internal sealed class BlkGuest : IVirtioInterrupts, IDisposable
{
    public const int RamBytes = 8 << 20;
    public const ulong Data = 0x100000;
    public const ushort Size = 64;
    private const ulong Table = 0x1000, Avail = 0x2000, Used = 0x3000, Headers = 0x4000, Statuses = 0x8000;
    private readonly NativeArray<byte> _ram = new(RamBytes, 4096);
    private readonly object _gate = new();
    private ushort _nextDescriptor;
    private ushort _avail;
    private ushort _used;
    private int _configChanges;

    public BlkGuest(VirtioDevice device, ulong features = ulong.MaxValue, bool activate = true, bool indirect = false)
    {
        Device = device;
        Memory = new GuestMemory([new GuestRegion(new(0), new ByteSize((ulong)RamBytes), _ram.AddressOf(0))]);
        Features = (features & device.DeviceFeatures) | (indirect ? VirtioFeatures.IndirectDescriptors : 0);
        if (activate)
        {
            Activate();
        }
    }

    public VirtioDevice Device { get; }

    public GuestMemory Memory { get; }

    public ulong Features { get; }

    public EventFd Doorbell { get; } = new();

    public string? NeedsReset { get; private set; }

    public int Interrupts { get; private set; }

    public Span<byte> Ram(ulong at, int length) => _ram.Span.Slice((int)at, length);

    public VirtioActivation Activation()
    {
        Assert.True(Virtqueue.TryCreate(Memory, new(Size, new(Table), new(Avail), new(Used)), Features, out Virtqueue? queue, out _));
        return new VirtioActivation(Memory, Features, [new ActiveQueue(queue!, Doorbell)], this);
    }

    public void Activate()
    {
        Ram(Table, 0x4000).Clear();
        _avail = _used = _nextDescriptor = 0;
        NeedsReset = null;
        Device.Activate(Activation());
    }

    public void SignalQueue(int queue)
    {
        lock (_gate)
        {
            Interrupts++;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Configuration interrupts so far.</summary>
    public int ConfigChanges => Volatile.Read(ref _configChanges);

    public void SignalConfigChanged() => Interlocked.Increment(ref _configChanges);

    public void SetNeedsReset(string reason)
    {
        lock (_gate)
        {
            NeedsReset = reason;
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>Posts a chain of (address, length, writable) without ringing; the chain's head.</summary>
    public ushort Post(params ReadOnlySpan<(ulong At, int Length, bool Writable)> buffers)
    {
        ushort head = _nextDescriptor;
        for (int i = 0; i < buffers.Length; i++)
        {
            ushort index = (ushort)((head + i) % Size);
            ushort next = (ushort)((index + 1) % Size);
            int flags = (buffers[i].Writable ? 2 : 0) | (i + 1 < buffers.Length ? 1 : 0);
            WriteDescriptor(index, buffers[i].At, (uint)buffers[i].Length, (ushort)flags, next);
        }

        _nextDescriptor = (ushort)((head + buffers.Length) % Size);
        MakeAvailable(head);
        return head;
    }

    /// <summary>Posts a chain whose descriptors are all in an indirect table.</summary>
    public ushort PostIndirect(ulong table, params ReadOnlySpan<(ulong At, int Length, bool Writable)> buffers)
    {
        for (int i = 0; i < buffers.Length; i++)
        {
            int flags = (buffers[i].Writable ? 2 : 0) | (i + 1 < buffers.Length ? 1 : 0);
            Write(table + (16UL * (ulong)i), buffers[i].At, (uint)buffers[i].Length, (ushort)flags, (ushort)(i + 1));
        }

        ushort head = _nextDescriptor;
        WriteDescriptor(head, table, 16 * (uint)buffers.Length, flags: 4, next: 0);
        _nextDescriptor = (ushort)((head + 1) % Size);
        MakeAvailable(head);
        return head;
    }

    public void WriteDescriptor(int index, ulong at, uint length, ushort flags, ushort next) =>
        Write(Table + (16UL * (ulong)index), at, length, flags, next);

    private void Write(ulong place, ulong at, uint length, ushort flags, ushort next)
    {
        Span<byte> d = Ram(place, 16);
        BinaryPrimitives.WriteUInt64LittleEndian(d, at);
        BinaryPrimitives.WriteUInt32LittleEndian(d[8..], length);
        BinaryPrimitives.WriteUInt16LittleEndian(d[12..], flags);
        BinaryPrimitives.WriteUInt16LittleEndian(d[14..], next);
    }

    public void MakeAvailable(ushort head)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(Ram(Avail + 4 + (2UL * (ulong)(_avail % Size)), 2), head);
        _avail++;
        Memory.TryWriteIndex(new(Avail + 2), _avail);
    }

    /// <summary>Any free-running index, for a hostile driver.</summary>
    public void SetAvailIndex(ushort index) => Memory.TryWriteIndex(new(Avail + 2), index);

    public void Kick() => Doorbell.Signal();

    /// <summary>Used entry number <c>next</c>, if it is there.</summary>
    public bool TryTakeUsed(out uint head, out uint written)
    {
        head = written = 0;
        Memory.TryReadIndex(new(Used + 2), out ushort index);
        if (index == _used)
        {
            return false;
        }

        Span<byte> entry = Ram(Used + 4 + (8UL * (ulong)(_used % Size)), 8);
        head = BinaryPrimitives.ReadUInt32LittleEndian(entry);
        written = BinaryPrimitives.ReadUInt32LittleEndian(entry[4..]);
        _used++;
        return true;
    }

    public (uint Head, uint Written) WaitUsed()
    {
        uint head, written;
        lock (_gate)
        {
            while (!TryTakeUsed(out head, out written))
            {
                Assert.Null(NeedsReset);
                Assert.True(Monitor.Wait(_gate, 20_000), "the device does not answer");
            }
        }

        return (head, written);
    }

    public string WaitNeedsReset()
    {
        lock (_gate)
        {
            while (NeedsReset is null)
            {
                Assert.True(Monitor.Wait(_gate, 20_000), "the device did not ask for a reset");
            }

            return NeedsReset;
        }
    }

    public ulong PutHeader(uint type, ulong sector, int slot = 0)
    {
        ulong at = Headers + ((ulong)slot * 16);
        Span<byte> h = Ram(at, 16);
        h.Clear();
        BinaryPrimitives.WriteUInt32LittleEndian(h, type);
        BinaryPrimitives.WriteUInt64LittleEndian(h[8..], sector);
        return at;
    }

    public ulong PutStatus(int slot = 0)
    {
        Ram(Statuses + (ulong)slot, 1)[0] = 0xee;
        return Statuses + (ulong)slot;
    }

    public ulong PutStatusAddress(int slot) => Statuses + (ulong)slot;

    /// <summary>One request in the usual layout; its status byte and used length.</summary>
    public (byte Status, uint Written) Request(uint type, ulong sector, ulong data, int length, bool dataWritable)
    {
        ulong header = PutHeader(type, sector), status = PutStatus();
        ushort head = length == 0
            ? Post((header, 16, false), (status, 1, true))
            : Post((header, 16, false), (data, length, dataWritable), (status, 1, true));
        Kick();
        (uint used, uint written) = WaitUsed();
        Assert.Equal(head, used);
        return (Ram(status, 1)[0], written);
    }

    /// <summary>Discard (11) or write-zeroes (13) of one range.</summary>
    public byte RequestRange(uint type, ulong sector, uint sectors, uint flags, int length = 16)
    {
        Span<byte> range = Ram(Data, 32);
        BinaryPrimitives.WriteUInt64LittleEndian(range, sector);
        BinaryPrimitives.WriteUInt32LittleEndian(range[8..], sectors);
        BinaryPrimitives.WriteUInt32LittleEndian(range[12..], flags);
        return Request(type, 0, Data, length, dataWritable: false).Status;
    }

    /// <summary>Discard (11) or write-zeroes (13) of several ranges.</summary>
    public byte RequestRanges(uint type, params ReadOnlySpan<(ulong Sector, uint Sectors, uint Flags)> ranges)
    {
        for (int i = 0; i < ranges.Length; i++)
        {
            Span<byte> range = Ram(Data + (16UL * (ulong)i), 16);
            BinaryPrimitives.WriteUInt64LittleEndian(range, ranges[i].Sector);
            BinaryPrimitives.WriteUInt32LittleEndian(range[8..], ranges[i].Sectors);
            BinaryPrimitives.WriteUInt32LittleEndian(range[12..], ranges[i].Flags);
        }

        return Request(type, 0, Data, ranges.Length * 16, dataWritable: false).Status;
    }

    public void Dispose()
    {
        Device.Dispose();
        Doorbell.Dispose();
        _ram.Dispose();
    }
}
