using System.Buffers.Binary;

namespace Vmm.Devices.Acpi;

/// <summary>Builds one system description table: the common header (ACPI 6.5 section 5.2.6), then fields in order.</summary>
public sealed class AcpiTable(string signature, byte revision)
{
    /// <summary>Length of the common header in bytes.</summary>
    public const int HeaderLength = 36;

    private readonly ByteSink _body = new();

    /// <summary>Four letters.</summary>
    public string Signature => signature;

    /// <summary>One byte.</summary>
    public AcpiTable U8(byte value)
    {
        _body.Add(value);
        return this;
    }

    /// <summary>Two bytes.</summary>
    public AcpiTable U16(ushort value)
    {
        Span<byte> raw = stackalloc byte[2];
        BinaryPrimitives.WriteUInt16LittleEndian(raw, value);
        return Raw(raw);
    }

    /// <summary>Four bytes.</summary>
    public AcpiTable U32(uint value)
    {
        Span<byte> raw = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(raw, value);
        return Raw(raw);
    }

    /// <summary>Eight bytes.</summary>
    public AcpiTable U64(ulong value)
    {
        Span<byte> raw = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(raw, value);
        return Raw(raw);
    }

    /// <summary>Reserved bytes, zero.</summary>
    public AcpiTable Zero(int count)
    {
        _body.AddZeros(count);
        return this;
    }

    /// <summary>Zeros up to <paramref name="offset"/> from the start of the table.</summary>
    public AcpiTable ZeroTo(int offset) => Zero(offset - HeaderLength - _body.Count);

    /// <summary>A generic address structure for an I/O port (5.2.3.2), <paramref name="bytes"/> wide: 1, 2 or 4.</summary>
    public AcpiTable PortRegister(ushort port, byte bytes = 1) =>
        U8(1).U8((byte)(bytes * 8)).U8(0).U8((byte)(bytes == 4 ? 3 : bytes)).U64(port);

    /// <summary>Bytes as they are.</summary>
    public AcpiTable Raw(ReadOnlySpan<byte> bytes)
    {
        _body.Add(bytes);
        return this;
    }

    /// <summary>The finished table with length and checksum.</summary>
    public byte[] ToArray()
    {
        byte[] table = new byte[HeaderLength + _body.Count];
        for (int i = 0; i < 4; i++)
        {
            table[i] = (byte)signature[i];
        }

        BinaryPrimitives.WriteInt32LittleEndian(table.AsSpan(4), table.Length);
        table[8] = revision;
        "VMMCS "u8.CopyTo(table.AsSpan(10));
        "VMMTABLE"u8.CopyTo(table.AsSpan(16));
        BinaryPrimitives.WriteInt32LittleEndian(table.AsSpan(24), 1);
        "VMM "u8.CopyTo(table.AsSpan(28));
        BinaryPrimitives.WriteInt32LittleEndian(table.AsSpan(32), 1);
        _body.Written.CopyTo(table.AsSpan(HeaderLength));
        table[9] = Checksum(table);
        return table;
    }

    /// <summary>The byte that makes the sum of all bytes zero, when it stands as zero among them.</summary>
    public static byte Checksum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (byte value in bytes)
        {
            sum = unchecked((byte)(sum + value));
        }

        return unchecked((byte)-sum);
    }
}
