using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Xunit;

namespace Vmm.Testing.Virtio;

/// <summary>One buffer of a chain.</summary>
public readonly record struct Piece(ulong At, uint Length, bool Writable);

/// <summary>What the driver tells the device about one queue, right or wrong.</summary>
public sealed class RingPlan
{
    public ushort Size { get; set; }

    public ulong Table { get; set; }

    public ulong Avail { get; set; }

    public ulong Used { get; set; }

    public bool Enabled { get; set; } = true;
}

/// <summary>
/// A driver that reaches its device through the registers of a transport, and keeps to the rules of virtio 1.2 or breaks them one at a
/// time. What it did not
/// give to the device is watched (<see cref="Watch"/>, <see cref="AssertContained"/>).
/// </summary>
public sealed class DeviceGuest : IDisposable
{
    public const ushort Next = 1, Write = 2, Indirect = 4;
    public const byte NeedsReset = 0x40;
    public const ulong Data = 0x80000;
    private const ulong Stride = 0x4000, AvailAt = 0x1000, UsedAt = 0x2000, IndirectAt = 0x3000;
    private static readonly int s_patience =
        1000 * (int.TryParse(Environment.GetEnvironmentVariable("VMM_HOSTILE_PATIENCE"), out int seconds) ? seconds : 30);
    private readonly object _gate = new();
    private readonly ushort[] _avail, _used, _nextDescriptor;
    private readonly byte[] _before = new byte[GuestRam.Bytes];

    private readonly bool _ownRam;

    /// <summary>A driver for a device; with RAM of its own unless it shares another's.</summary>
    public DeviceGuest(VirtioDevice device, TransportKind kind, GuestRam? shared = null)
        : this(device, ram => DriverPort.Create(kind, device, ram), shared)
    {
    }

    /// <summary>A driver for a device that it reaches by a port of the caller's.</summary>
    public DeviceGuest(VirtioDevice device, Func<GuestRam, DriverPort> port, GuestRam? shared = null)
    {
        Ram = shared ?? new GuestRam();
        _ownRam = shared is null;
        Device = device;
        Port = port(Ram);
        Port.Interrupted = Pulse;
        Features = Port.Offered;
        int queues = device.QueueSizes.Count;
        (_avail, _used, _nextDescriptor) = (new ushort[queues], new ushort[queues], new ushort[queues]);
        Plans = new RingPlan[queues];
        PlanAnew();
    }

    /// <summary>The same driver, rings and memory in front of another device, to which the state of the first one went.</summary>
    public void MoveTo(VirtioDevice device, DriverPort port)
    {
        Port.Dispose();
        (Device, Port) = (device, port);
        Port.Interrupted = Pulse;
    }

    public VirtioDevice Device { get; private set; }

    public GuestRam Ram { get; }

    public DriverPort Port { get; private set; }

    /// <summary>What the driver accepts.</summary>
    public ulong Features { get; set; }

    public RingPlan[] Plans { get; }

    public int Queues => Plans.Length;

    public bool Broken => (Port.Status & NeedsReset) != 0;

    /// <summary>Where the data of a queue's requests may lie, 32 KiB.</summary>
    public static ulong DataOf(int queue) => Data + ((ulong)queue * 0x8000);

    /// <summary>Room for an indirect table of a queue.</summary>
    public static ulong TableOf(int queue) => 0x1000 + ((ulong)queue * Stride) + IndirectAt;

    public Span<byte> At(ulong at, int length) => Ram.All.Slice((int)at, length);

    /// <summary>The layout of a driver that keeps to the rules.</summary>
    public void PlanAnew()
    {
        for (int i = 0; i < Plans.Length; i++)
        {
            ulong at = 0x1000 + ((ulong)i * Stride);
            Plans[i] =
                new RingPlan { Size = Math.Min((ushort)16, Device.QueueSizes[i]), Table = at, Avail = at + AvailAt, Used = at + UsedAt };
        }
    }

    /// <summary>Reset, ACKNOWLEDGE, DRIVER, features: up to FEATURES_OK (virtio 1.2 section 3.1.1 steps 1 to 6).</summary>
    public void Negotiate()
    {
        Port.Status = 0;
        Port.Status = 1;
        Port.Status = 3;
        Port.Accept(Features);
        Port.Status = 11;
    }

    /// <summary>Tells the device where the rings are, which are empty (3.1.1 step 7).</summary>
    public void PlaceQueues()
    {
        for (int i = 0; i < Plans.Length; i++)
        {
            Clear(i);
            if (Plans[i].Enabled)
            {
                PlaceQueue(i);
            }
        }
    }

    public void PlaceQueue(int queue)
    {
        RingPlan plan = Plans[queue];
        Port.Select((uint)queue);
        Port.Size = plan.Size;
        Port.Place(plan.Table, plan.Avail, plan.Used);
        Port.Listen(queue);
        Port.Enabled = true;
    }

    /// <summary>The whole of 3.1.1.</summary>
    public void Start()
    {
        Negotiate();
        Assert.Equal(11, Port.Status);
        PlaceQueues();
        Port.Status = 15;
    }

    /// <summary>Writes a descriptor.</summary>
    public void Put(int queue, int index, ulong at, uint length, int flags, int next = 0) =>
        Put(Plans[queue].Table, index, at, length, flags, next);

    public void Put(ulong table, int index, ulong at, uint length, int flags, int next = 0)
    {
        Span<byte> d = At(table + (16UL * (ulong)index), 16);
        BinaryPrimitives.WriteUInt64LittleEndian(d, at);
        BinaryPrimitives.WriteUInt32LittleEndian(d[8..], length);
        BinaryPrimitives.WriteUInt16LittleEndian(d[12..], (ushort)flags);
        BinaryPrimitives.WriteUInt16LittleEndian(d[14..], (ushort)next);
        Own(table + (16UL * (ulong)index), 16);
    }

    /// <summary>Writes a chain into a table from an index on.</summary>
    public void Lay(ulong table, int first, ReadOnlySpan<Piece> chain)
    {
        for (int i = 0; i < chain.Length; i++)
        {
            int flags = (chain[i].Writable ? Write : 0) | (i + 1 < chain.Length ? Next : 0);
            Put(table, first + i, chain[i].At, chain[i].Length, flags, first + i + 1);
        }
    }

    /// <summary>Makes a chain available, without a kick.</summary>
    public void Offer(int queue, int head)
    {
        RingPlan plan = Plans[queue];
        ulong entry = plan.Avail + 4 + (2UL * (ulong)(_avail[queue] % plan.Size));
        BinaryPrimitives.WriteUInt16LittleEndian(At(entry, 2), (ushort)head);
        Own(entry, 2);
        SetAvailIndex(queue, (ushort)(_avail[queue] + 1));
    }

    public void SetAvailIndex(int queue, ushort index)
    {
        _avail[queue] = index;
        Volatile.Write(ref System.Runtime.InteropServices.MemoryMarshal.AsRef<ushort>(At(Plans[queue].Avail + 2, 2)), index);
        Own(Plans[queue].Avail + 2, 2);
    }

    public void Kick(int queue) => Port.Notify((uint)queue);

    /// <summary>Makes a sound chain available at the next free descriptors and kicks; its head.</summary>
    public int Post(int queue, params ReadOnlySpan<Piece> chain)
    {
        int first = _nextDescriptor[queue];
        if (first + chain.Length > Plans[queue].Size)
        {
            first = 0;
        }

        Lay(Plans[queue].Table, first, chain);
        _nextDescriptor[queue] = (ushort)(first + chain.Length);
        Offer(queue, first);
        Kick(queue);
        return first;
    }

    /// <summary>Chains that were given back and not taken yet.</summary>
    public int UsedCount(int queue) => (ushort)(UsedIndex(queue) - _used[queue]);

    public ushort UsedIndex(int queue) =>
        Volatile.Read(ref System.Runtime.InteropServices.MemoryMarshal.AsRef<ushort>(At(Plans[queue].Used + 2, 2)));

    public (uint Head, uint Written) WaitUsed(int queue)
    {
        Wait(() => UsedCount(queue) > 0 || Broken, $"queue {queue} is not served");
        Assert.True(UsedCount(queue) > 0, $"queue {queue}: the device needs a reset: {Port.Transport.LastFault}");
        Span<byte> entry = At(Plans[queue].Used + 4 + (8UL * (ulong)(_used[queue]++ % Plans[queue].Size)), 8);
        return (BinaryPrimitives.ReadUInt32LittleEndian(entry), BinaryPrimitives.ReadUInt32LittleEndian(entry[4..]));
    }

    /// <summary>Posts a chain and waits for it; bytes written.</summary>
    public uint Request(int queue, params ReadOnlySpan<Piece> chain)
    {
        int head = Post(queue, chain);
        (uint used, uint written) = WaitUsed(queue);
        Assert.Equal((uint)head, used);
        return written;
    }

    /// <summary>The device set DEVICE_NEEDS_RESET and told the driver by a configuration interrupt (2.1.2); why it did.</summary>
    public string WaitNeedsReset()
    {
        Wait(() => Broken, "the device does not ask for a reset");
        Wait(() => Port.ConfigInterrupts > 0, "no configuration interrupt told of NEEDS_RESET");
        return Port.Transport.LastFault ?? "";
    }

    public void Wait(Func<bool> condition, string otherwise)
    {
        long deadline = Environment.TickCount64 + s_patience;
        lock (_gate)
        {
            while (!condition())
            {
                Assert.True(Environment.TickCount64 < deadline, otherwise);
                Monitor.Wait(_gate, 2);
            }
        }
    }

    /// <summary>Remembers the RAM as it is.</summary>
    public void Watch() => Ram.All.CopyTo(_before);

    /// <summary>Nothing changed since <see cref="Watch"/> but used rings and what the driver gave to be written.</summary>
    public void AssertContained(params ReadOnlySpan<Piece> given)
    {
        // What may change is put back to what it was, and the rest compared at once.
        byte[] now = Ram.All.ToArray();
        foreach (RingPlan plan in Plans)
        {
            if (plan.Enabled)
            {
                Forget(now, plan.Used, 6 + (8 * Math.Max(plan.Size, (ushort)16)));
            }
        }

        foreach (Piece piece in given)
        {
            if (piece.Writable)
            {
                Forget(now, piece.At, piece.Length);
            }
        }

        int changed = now.AsSpan().CommonPrefixLength(_before);
        Assert.True(changed == now.Length, $"the device changed guest memory at 0x{changed:x} that was not given to it");
    }

    public void Dispose()
    {
        Port.Dispose();
        if (_ownRam)
        {
            Ram.Dispose();
        }
    }

    /// <summary>The driver's own writes to its rings are none of the device's.</summary>
    private void Own(ulong at, int length) => At(at, length).CopyTo(_before.AsSpan((int)at));

    private void Forget(byte[] now, ulong at, long length)
    {
        long start = (long)Math.Min(at, (ulong)now.Length), count = Math.Clamp(length, 0, now.Length - start);
        _before.AsSpan((int)start, (int)count).CopyTo(now.AsSpan((int)start));
    }

    private void Clear(int queue)
    {
        (_avail[queue], _used[queue], _nextDescriptor[queue]) = (0, 0, 0);
        RingPlan plan = Plans[queue];
        int size = Math.Max(plan.Size, (ushort)16);
        foreach ((ulong at, int length) in ((ulong, int)[])
        [
            (plan.Table, 16 * size), (plan.Avail, 6 + (2 * size)), (plan.Used, 6 + (8 * size))
        ])
        {
            if (at < GuestRam.Bytes)
            {
                At(at, Math.Min(length, GuestRam.Bytes - (int)at)).Clear();
            }
        }
    }

    private void Pulse()
    {
        lock (_gate)
        {
            Monitor.PulseAll(_gate);
        }
    }
}
