using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.Testing;

namespace Vmm.Devices.Tests.Virtio;

/// <summary>
/// A driver of a device with several queues, over RAM in a memfd as a real machine has it: posts chains, kicks, waits for used ones.
/// </summary>
internal sealed class QueueGuest : IVirtioInterrupts, IDisposable
{
    public const int RamBytes = 64 << 20;
    public const ulong Data = 0x100000;
    public const ushort Size = 64;
    private const ulong QueueStride = 0x4000, AvailAt = 0x1000, UsedAt = 0x2000;
    private readonly VnodeMemory _ram = VnodeMemory.Create(
        new VnodePlacement(0, new ByteSize((ulong)RamBytes), new ByteSize(4096), null, []), HostTopology.Unknown);
    private readonly object _gate = new();
    private readonly Ring[] _rings;

    public QueueGuest(VirtioDevice device, ulong features = ulong.MaxValue, bool activate = true, int[]? absent = null)
    {
        Device = device;
        Memory = new GuestMemory([_ram.Region(new(0), new ByteSize((ulong)RamBytes), 0)]);
        Features = features & device.DeviceFeatures;
        _rings = [.. device.QueueSizes.Select((_, i) => new Ring { Enabled = absent?.Contains(i) != true })];
        if (activate)
        {
            Activate();
        }
    }

    public VirtioDevice Device { get; }

    public GuestMemory Memory { get; }

    public ulong Features { get; }

    /// <summary>What the transport answers; null: it has none.</summary>
    public EventFd?[] Triggers { get; init; } = [];

    public Action<int>? QueueTriggerChanged { get; set; }

    public EventFd? QueueTrigger(int queue) => queue < Triggers.Length ? Triggers[queue] : null;

    public string? NeedsReset { get; private set; }

    public int ConfigChanges { get; private set; }

    /// <summary>The queue of the last interrupt; null: none yet.</summary>
    public int? LastSignalled { get; private set; }

    /// <summary>All its memory, for another process.</summary>
    public MemoryExtent Extent => new(new(0), new ByteSize((ulong)RamBytes), _ram.BackingFile, 0);

    /// <summary>4 KiB pages of the guest that have memory of the host behind them.</summary>
    public long ResidentPages => _ram.ResidentPages().Values.Sum(p => (long)p.Value);

    /// <summary>Writes a used entry in the device's stead, as a kernel does that serves the ring.</summary>
    public void PutUsed(int queue, ushort index, uint head)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(Ram(Table(queue) + UsedAt + 4 + (8UL * (ulong)(index % Size)), 4), head);
        Memory.TryWriteIndex(new(Table(queue) + UsedAt + 2), (ushort)(index + 1));
    }

    public static ulong Table(int queue) => 0x1000 + ((ulong)queue * QueueStride);

    public Span<byte> Ram(ulong at, int length)
    {
        Assert.True(Memory.TryGetSpan(new(at), length, out Span<byte> span));
        return span;
    }

    public void Activate(ulong extra = 0) => Device.Activate(Activation(extra));

    /// <summary>Fresh rings, without anybody who serves them.</summary>
    public VirtioActivation Activation(ulong extra = 0)
    {
        NeedsReset = null;
        ActiveQueue?[] active = new ActiveQueue?[_rings.Length];
        for (int i = 0; i < _rings.Length; i++)
        {
            Ram(Table(i), (int)QueueStride).Clear();
            _rings[i].Avail = _rings[i].Used = _rings[i].NextDescriptor = 0;
            if (_rings[i].Enabled)
            {
                Assert.True(Virtqueue.TryCreate(Memory, Layout(i), Features | extra, out Virtqueue? queue, out string? reason), reason);
                active[i] = new ActiveQueue(queue!, _rings[i].Doorbell);
            }
        }

        return new VirtioActivation(Memory, Features | extra, active, this);
    }

    public void SignalQueue(int queue) => Pulse(() => LastSignalled = queue);

    public void SignalConfigChanged() => Pulse(() => ConfigChanges++);

    public void SetNeedsReset(string reason) => Pulse(() => NeedsReset = reason);

    public void WriteDescriptor(int queue, int index, ulong at, uint length, ushort flags, ushort next)
    {
        Span<byte> d = Ram(Table(queue) + (16UL * (ulong)index), 16);
        BinaryPrimitives.WriteUInt64LittleEndian(d, at);
        BinaryPrimitives.WriteUInt32LittleEndian(d[8..], length);
        BinaryPrimitives.WriteUInt16LittleEndian(d[12..], flags);
        BinaryPrimitives.WriteUInt16LittleEndian(d[14..], next);
    }

    /// <summary>Posts a chain and rings; its head.</summary>
    public ushort Post(int queue, params ReadOnlySpan<(ulong At, int Length, bool Writable)> buffers)
    {
        Ring ring = _rings[queue];
        ushort head = ring.NextDescriptor;
        for (int i = 0; i < buffers.Length; i++)
        {
            ushort index = (ushort)((head + i) % Size);
            int flags = (buffers[i].Writable ? 2 : 0) | (i + 1 < buffers.Length ? 1 : 0);
            WriteDescriptor(queue, index, buffers[i].At, (uint)buffers[i].Length, (ushort)flags, (ushort)((index + 1) % Size));
        }

        ring.NextDescriptor = (ushort)((head + buffers.Length) % Size);
        MakeAvailable(queue, head);
        Kick(queue);
        return head;
    }

    public void MakeAvailable(int queue, ushort head)
    {
        Ring ring = _rings[queue];
        BinaryPrimitives.WriteUInt16LittleEndian(Ram(Table(queue) + AvailAt + 4 + (2UL * (ulong)(ring.Avail % Size)), 2), head);
        ring.Avail++;
        Memory.TryWriteIndex(new(Table(queue) + AvailAt + 2), ring.Avail);
    }

    public void Kick(int queue) => _rings[queue].Doorbell.Signal();

    public bool TryTakeUsed(int queue, out uint head, out uint written)
    {
        Ring ring = _rings[queue];
        head = written = 0;
        Memory.TryReadIndex(new(Table(queue) + UsedAt + 2), out ushort index);
        if (index == ring.Used)
        {
            return false;
        }

        Span<byte> entry = Ram(Table(queue) + UsedAt + 4 + (8UL * (ulong)(ring.Used % Size)), 8);
        head = BinaryPrimitives.ReadUInt32LittleEndian(entry);
        written = BinaryPrimitives.ReadUInt32LittleEndian(entry[4..]);
        ring.Used++;
        return true;
    }

    public (uint Head, uint Written) WaitUsed(int queue)
    {
        uint head = 0, written = 0;
        Wait(() => TryTakeUsed(queue, out head, out written), "the device does not answer");
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

    /// <summary>Waits for a condition that an interrupt tells of, or that is looked at every few milliseconds.</summary>
    public void Wait(Func<bool> condition, string otherwise)
    {
        long deadline = Environment.TickCount64 + 20_000;
        lock (_gate)
        {
            while (!condition())
            {
                Assert.Null(NeedsReset);
                Assert.True(Environment.TickCount64 < deadline, otherwise);
                Monitor.Wait(_gate, 5);
            }
        }
    }

    public void Dispose()
    {
        Device.Dispose();
        foreach (Ring ring in _rings)
        {
            ring.Doorbell.Dispose();
        }

        _ram.Dispose();
    }

    private static VirtqueueLayout Layout(int queue) =>
        new(Size, new(Table(queue)), new(Table(queue) + AvailAt), new(Table(queue) + UsedAt));

    private void Pulse(Action change)
    {
        lock (_gate)
        {
            change();
            Monitor.PulseAll(_gate);
        }
    }

    private sealed class Ring
    {
        public bool Enabled { get; init; }

        public EventFd Doorbell { get; } = new();

        public ushort Avail { get; set; }

        public ushort Used { get; set; }

        public ushort NextDescriptor { get; set; }
    }
}

/// <summary>
/// Random nonsense in rings, descriptors and buffers, many times over: the device answers or asks for a reset, and a reset always comes
/// back soon.
/// </summary>
internal static class QueueFuzz
{
    public static int Iterations => int.TryParse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS"), out int n) ? n : 300;

    public static void Run(VirtioDevice device, int seed, Action<Random, QueueGuest>? host = null)
    {
        Random random = new(seed);
        using QueueGuest guest = new(device, activate: false);
        byte[] noise = new byte[512];
        for (int round = 0; round < Iterations; round++)
        {
            guest.Activate();
            for (int step = 0; step < 8; step++)
            {
                int queue = random.Next(device.QueueSizes.Count);
                random.NextBytes(noise);
                noise.CopyTo(guest.Ram(QueueGuest.Data + (ulong)(random.Next(64) * 64), noise.Length));
                for (int i = 0; i < 8; i++)
                {
                    // Mostly plausible, so that chains get past the first check.
                    ulong at = random.Next(12) == 0 ? (ulong)random.NextInt64() : QueueGuest.Data + (ulong)random.Next(1 << 16);
                    uint length = random.Next(12) == 0 ? (uint)random.Next() : (uint)random.Next(1, 5000);
                    guest.WriteDescriptor(queue, i, at, length, (ushort)(random.Next(10) == 0 ? random.Next(8) : random.Next(4)),
                        (ushort)random.Next(random.Next(8) == 0 ? 70 : 8));
                }

                guest.MakeAvailable(queue, (ushort)random.Next(random.Next(16) == 0 ? 70 : 8));
                guest.Kick(queue);
                host?.Invoke(random, guest);
                device.WriteConfig(random.Next(-4, 24), noise.AsSpan(0, random.Next(9)));
                device.ReadConfig(random.Next(-4, 24), noise.AsSpan(0, random.Next(9)));
            }

            long before = Environment.TickCount64;
            device.Reset();
            Assert.InRange(Environment.TickCount64 - before, 0, 10_000);
        }
    }
}
