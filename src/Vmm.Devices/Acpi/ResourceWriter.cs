using System.Buffers.Binary;

namespace Vmm.Devices.Acpi;

/// <summary>Collects resource descriptors (ACPI 6.5 section 6.4) for a <c>_CRS</c>.</summary>
public sealed class ResourceWriter
{
    private readonly ByteSink _bytes = new();

    /// <summary>What was written so far.</summary>
    public byte[] ToArray() => _bytes.ToArray();

    /// <summary>Fixed I/O ports (6.4.2.5).</summary>
    public ResourceWriter Io(ushort first, byte count)
    {
        Span<byte> d = stackalloc byte[8];
        d[0] = 0x47;
        d[1] = 1; // 16-bit decode
        BinaryPrimitives.WriteUInt16LittleEndian(d[2..], first);
        BinaryPrimitives.WriteUInt16LittleEndian(d[4..], first);
        d[6] = 1;
        d[7] = count;
        return Raw(d);
    }

    /// <summary>One interrupt, edge triggered, active high, exclusive (6.4.3.6).</summary>
    public ResourceWriter EdgeInterrupt(uint gsi) => Interrupt(gsi, 0x03); // consumer, edge

    /// <summary>One interrupt, level triggered, active high, exclusive (6.4.3.6).</summary>
    public ResourceWriter LevelInterrupt(uint gsi) => Interrupt(gsi, 0x01); // consumer

    private ResourceWriter Interrupt(uint gsi, byte flags)
    {
        Span<byte> d = stackalloc byte[9];
        d[0] = 0x89;
        BinaryPrimitives.WriteUInt16LittleEndian(d[1..], 6);
        d[3] = flags;
        d[4] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(d[5..], gsi);
        return Raw(d);
    }

    /// <summary>A fixed range of memory below 4 GiB, read-write (6.4.3.4).</summary>
    public ResourceWriter FixedMemory(uint start, uint length)
    {
        Span<byte> d = stackalloc byte[12];
        d[0] = 0x86;
        BinaryPrimitives.WriteUInt16LittleEndian(d[1..], 9);
        d[3] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(d[4..], start);
        BinaryPrimitives.WriteUInt32LittleEndian(d[8..], length);
        return Raw(d);
    }

    /// <summary>Bus numbers a host bridge hands down (6.4.3.5.3, word form).</summary>
    public ResourceWriter BusRange(ushort first, ushort last)
    {
        Span<byte> d = stackalloc byte[16];
        d.Clear();
        d[0] = 0x88;
        BinaryPrimitives.WriteUInt16LittleEndian(d[1..], 13);
        d[3] = 2;
        d[4] = 0x0C; // producer, positive decode, minimum and maximum fixed
        BinaryPrimitives.WriteUInt16LittleEndian(d[8..], first);
        BinaryPrimitives.WriteUInt16LittleEndian(d[10..], last);
        BinaryPrimitives.WriteUInt16LittleEndian(d[14..], (ushort)(last - first + 1));
        return Raw(d);
    }

    /// <summary>A memory window below 4 GiB that a host bridge hands down, non-cacheable, read-write (6.4.3.5.2).</summary>
    public ResourceWriter MemoryWindow32(uint start, uint length)
    {
        Span<byte> d = stackalloc byte[26];
        d.Clear();
        d[0] = 0x87;
        BinaryPrimitives.WriteUInt16LittleEndian(d[1..], 23);
        d[4] = 0x0C;
        d[5] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(d[10..], start);
        BinaryPrimitives.WriteUInt32LittleEndian(d[14..], start + length - 1);
        BinaryPrimitives.WriteUInt32LittleEndian(d[22..], length);
        return Raw(d);
    }

    /// <summary>A memory window anywhere that a host bridge hands down, non-cacheable, read-write (6.4.3.5.1).</summary>
    public ResourceWriter MemoryWindow64(ulong start, ulong length)
    {
        Span<byte> d = stackalloc byte[46];
        d.Clear();
        d[0] = 0x8A;
        BinaryPrimitives.WriteUInt16LittleEndian(d[1..], 43);
        d[4] = 0x0C;
        d[5] = 1;
        BinaryPrimitives.WriteUInt64LittleEndian(d[14..], start);
        BinaryPrimitives.WriteUInt64LittleEndian(d[22..], start + length - 1);
        BinaryPrimitives.WriteUInt64LittleEndian(d[38..], length);
        return Raw(d);
    }

    private ResourceWriter Raw(ReadOnlySpan<byte> bytes)
    {
        _bytes.Add(bytes);
        return this;
    }
}
