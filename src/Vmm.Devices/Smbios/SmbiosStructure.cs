using System.Buffers.Binary;
using Vmm.Devices.Acpi;

namespace Vmm.Devices.Smbios;

/// <summary>
/// One structure while it is written (DMTF DSP0134 3.x, 6.1): type, length of what is formatted, handle, the fields, then its texts. Fields
/// name texts by number. A text is printable ASCII; anything else in it becomes a question mark.
/// </summary>
internal sealed class SmbiosStructure
{
    private readonly ByteSink _fields = new(), _texts = new();
    private byte _textCount;

    internal SmbiosStructure(byte type, ushort handle)
    {
        Byte(type).Byte(0).Word(handle);
    }

    internal SmbiosStructure Byte(byte value)
    {
        _fields.Add(value);
        return this;
    }

    internal SmbiosStructure Word(ushort value)
    {
        Span<byte> bytes = stackalloc byte[2];
        BinaryPrimitives.WriteUInt16LittleEndian(bytes, value);
        _fields.Add(bytes);
        return this;
    }

    internal SmbiosStructure Dword(uint value)
    {
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        _fields.Add(bytes);
        return this;
    }

    internal SmbiosStructure Qword(ulong value) => Dword((uint)value).Dword((uint)(value >> 32));

    internal SmbiosStructure Zeros(int count)
    {
        _fields.AddZeros(count);
        return this;
    }

    internal SmbiosStructure Bytes(ReadOnlySpan<byte> bytes)
    {
        _fields.Add(bytes);
        return this;
    }

    /// <summary>The number of a text; 0 for one that is not there.</summary>
    internal SmbiosStructure Text(string? text) => Byte(text is null or "" ? (byte)0 : AddText(text));

    /// <summary>Adds a text that no field names.</summary>
    internal byte AddText(string text)
    {
        foreach (char c in text)
        {
            _texts.Add(c is >= ' ' and <= '~' ? (byte)c : (byte)'?');
        }

        _texts.Add(0);
        return ++_textCount;
    }

    /// <summary>Appends it to the table.</summary>
    internal void WriteTo(ByteSink table)
    {
        byte[] fields = _fields.ToArray();
        fields[1] = (byte)fields.Length;
        table.Add(fields);
        table.Add(_texts.Written);
        table.AddZeros(_textCount == 0 ? 2 : 1);
    }
}
