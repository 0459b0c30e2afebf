using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Virtio;

/// <summary>1 MiB of guest RAM with one split ring, written by hand the way a driver (or an attacker) would.</summary>
internal sealed class RingRam(ushort size = 8) : IDisposable
{
    public const int Bytes = 1 << 20;
    public const ulong Table = 0x1000, Avail = 0x2000, Used = 0x3000, Indirect = 0x4000, Data = 0x8000;
    public const ushort Next = 1, Write = 2, IsIndirect = 4;
    private readonly NativeArray<byte> _ram = new(Bytes, 4096);
    private GuestMemory? _memory;

    public ushort Size => size;

    public GuestMemory Memory => _memory ??= new GuestMemory([new GuestRegion(new(0), new ByteSize((ulong)Bytes), _ram.AddressOf(0))]);

    public Span<byte> Ram => _ram.Span;

    public Virtqueue Queue(ulong features = VirtioFeatures.IndirectDescriptors)
    {
        Assert.True(
            Virtqueue.TryCreate(Memory, new(size, new(Table), new(Avail), new(Used)), features, out Virtqueue? queue, out string? reason),
            reason);
        return queue!;
    }

    public void Descriptor(int index, ulong address, uint length, ushort flags = 0, ushort next = 0, ulong table = Table)
    {
        Span<byte> at = Ram.Slice((int)table + (index * 16), 16);
        BinaryPrimitives.WriteUInt64LittleEndian(at, address);
        BinaryPrimitives.WriteUInt32LittleEndian(at[8..], length);
        BinaryPrimitives.WriteUInt16LittleEndian(at[12..], flags);
        BinaryPrimitives.WriteUInt16LittleEndian(at[14..], next);
    }

    public void Put(ulong at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(Ram[(int)at..], value);

    public ushort Get(ulong at) => BinaryPrimitives.ReadUInt16LittleEndian(Ram[(int)at..]);

    public void Dispose() => _ram.Dispose();
}
