using System.Buffers.Binary;

namespace Vmm.Devices.Acpi;

/// <summary>
/// Writes ACPI Machine Language (ACPI 6.5 chapter 20), the part our DSDT needs. Blocks take an action that writes their content; their
/// length is known only after it ran (20.2.4).
/// </summary>
public sealed class AmlWriter
{
    private readonly ByteSink _bytes = new();

    /// <summary>What was written so far.</summary>
    public byte[] ToArray() => _bytes.ToArray();

    /// <summary><c>Scope (path) { body }</c></summary>
    public AmlWriter Scope(string path, Action<AmlWriter> body) => Block([0x10], path, null, body);

    /// <summary><c>Device (name) { body }</c></summary>
    public AmlWriter Device(string name, Action<AmlWriter> body) => Block([0x5B, 0x82], name, null, body);

    /// <summary><c>Method (name, arguments, NotSerialized) { body }</c></summary>
    public AmlWriter Method(string name, int arguments, Action<AmlWriter> body) => Block([0x14], name, (byte)arguments, body);

    /// <summary>
    /// <c>Method (name, arguments, Serialized) { body }</c>: for one that creates names or must not overlap itself (19.6.85).
    /// </summary>
    public AmlWriter SerializedMethod(string name, int arguments, Action<AmlWriter> body) =>
        Block([0x14], name, (byte)(arguments | 8), body);

    /// <summary><c>OperationRegion (name, SystemIO, port, length)</c></summary>
    public AmlWriter PortRegion(string name, ushort port, ushort length)
    {
        Put(0x5B).Put(0x80);
        PutName(name);
        return Put(1).Integer(port).Integer(length);
    }

    /// <summary><c>Field (region, DWordAcc, Lock, Preserve) { fields of 32 bits }</c></summary>
    public AmlWriter DWordFields(string region, params string[] fields)
    {
        AmlWriter inner = new();
        inner.PutName(region);
        inner.Put(0x13); // DWordAcc, Lock, Preserve
        foreach (string field in fields)
        {
            inner.PutName(field);
            inner.Put(32); // bits, in the form of a package length (20.2.5.2)
        }

        Put(0x5B).Put(0x81);
        return PutPackage(inner.ToArray());
    }

    /// <summary><c>CreateDWordField (ArgN, offset, name)</c></summary>
    public AmlWriter CreateDWordField(int argument, byte offset, string name)
    {
        Put(0x8A).Put((byte)(0x68 + argument)).Integer(offset);
        PutName(name);
        return this;
    }

    /// <summary><c>LocalN = name</c></summary>
    public AmlWriter LoadLocal(int local, string name)
    {
        Put(0x70);
        PutName(name);
        return Put((byte)(0x60 + local));
    }

    /// <summary><c>name = LocalN</c></summary>
    public AmlWriter StoreLocal(int local, string name)
    {
        Put(0x70).Put((byte)(0x60 + local));
        PutName(name);
        return this;
    }

    /// <summary><c>name = value</c></summary>
    public AmlWriter Store(ulong value, string name)
    {
        Put(0x70).Integer(value);
        PutName(name);
        return this;
    }

    /// <summary><c>name &amp;= value</c></summary>
    public AmlWriter And(string name, ulong value)
    {
        Put(0x7B);
        PutName(name);
        Integer(value);
        PutName(name);
        return this;
    }

    /// <summary><c>name |= value</c></summary>
    public AmlWriter Or(string name, ulong value)
    {
        Put(0x7D);
        PutName(name);
        Integer(value);
        PutName(name);
        return this;
    }

    /// <summary><c>If (LocalN &amp; mask) { body }</c></summary>
    public AmlWriter IfLocalHas(int local, ulong mask, Action<AmlWriter> body)
    {
        AmlWriter inner = new();
        inner.Put(0x7B).Put((byte)(0x60 + local)).Integer(mask).Put(0); // And without a target
        body(inner);
        Put(0xA0);
        return PutPackage(inner.ToArray());
    }

    /// <summary><c>If (name &amp; mask) { body }</c></summary>
    public AmlWriter IfHas(string name, ulong mask, Action<AmlWriter> body)
    {
        AmlWriter inner = new();
        inner.Put(0x7B);
        inner.PutName(name);
        inner.Integer(mask).Put(0);
        body(inner);
        Put(0xA0);
        return PutPackage(inner.ToArray());
    }

    /// <summary><c>name ()</c>: calls a method without arguments.</summary>
    public AmlWriter Call(string name)
    {
        PutName(name);
        return this;
    }

    /// <summary><c>Name (name, integer)</c></summary>
    public AmlWriter Name(string name, ulong value)
    {
        Put(0x08);
        PutName(name);
        return Integer(value);
    }

    /// <summary><c>Name (name, EISAID (id))</c>, e.g. PNP0A08 (20.3).</summary>
    public AmlWriter NameEisaId(string name, string id)
    {
        uint letters = ((uint)(id[0] - 0x40) << 26) | ((uint)(id[1] - 0x40) << 21) | ((uint)(id[2] - 0x40) << 16);
        uint value = BinaryPrimitives.ReverseEndianness(letters | Hex(id));
        Put(0x08);
        PutName(name);
        Put(0x0C);
        return U32(value);
    }

    /// <summary><c>Name (name, "text")</c></summary>
    public AmlWriter NameText(string name, string text)
    {
        Put(0x08);
        PutName(name);
        Put(0x0D);
        _bytes.AddAscii(text);
        return Put(0);
    }

    /// <summary><c>Name (name, Package { integers })</c></summary>
    public AmlWriter NamePackage(string name, params ReadOnlySpan<ulong> values)
    {
        Put(0x08);
        PutName(name);
        Put(0x12);
        return PutPackage(Integers(values));
    }

    /// <summary><c>Name (name, Package { Package { integers }, … })</c>; at most 255.</summary>
    public AmlWriter NamePackages(string name, IReadOnlyList<ulong[]> packages)
    {
        AmlWriter inner = new();
        inner.Put((byte)packages.Count);
        foreach (ulong[] package in packages)
        {
            inner.Put(0x12).PutPackage(Integers(package));
        }

        Put(0x08);
        PutName(name);
        Put(0x12);
        return PutPackage(inner.ToArray());
    }

    /// <summary><c>Name (name, ResourceTemplate { … })</c>; the end tag is added (6.4.2.9).</summary>
    public AmlWriter NameResources(string name, ReadOnlySpan<byte> descriptors)
    {
        AmlWriter inner = new();
        inner.Integer((ulong)descriptors.Length + 2);
        inner.Raw(descriptors);
        inner.Put(0x79);
        inner.Put(0); // no checksum
        Put(0x08);
        PutName(name);
        Put(0x11);
        return PutPackage(inner.ToArray());
    }

    /// <summary><c>Return (ArgN)</c></summary>
    public AmlWriter ReturnArgument(int argument)
    {
        Put(0xA4);
        return Put((byte)(0x68 + argument));
    }

    /// <summary><c>Notify (device, value)</c> of a device that the scope rules find by its last name (5.3).</summary>
    public AmlWriter Notify(string device, ulong value)
    {
        Put(0x86);
        PutName(device);
        return Integer(value);
    }

    /// <summary>An integer in its shortest form (20.2.3).</summary>
    public AmlWriter Integer(ulong value)
    {
        Span<byte> raw = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(raw, value);
        return value switch
        {
            0 or 1 => Put((byte)value),
            <= byte.MaxValue => Put(0x0A).Raw(raw[..1]),
            <= ushort.MaxValue => Put(0x0B).Raw(raw[..2]),
            <= uint.MaxValue => Put(0x0C).Raw(raw[..4]),
            _ => Put(0x0E).Raw(raw),
        };
    }

    /// <summary>The content of a package of integers.</summary>
    private static byte[] Integers(ReadOnlySpan<ulong> values)
    {
        AmlWriter inner = new();
        inner.Put((byte)values.Length);
        foreach (ulong value in values)
        {
            inner.Integer(value);
        }

        return inner.ToArray();
    }

    /// <summary>The four hexadecimal digits behind the three letters of an EISA id.</summary>
    private static uint Hex(string id)
    {
        uint value = 0;
        for (int i = 3; i < 7; i++)
        {
            int digit = char.IsAsciiDigit(id[i]) ? id[i] - '0' : (id[i] | 0x20) - 'a' + 10;
            value = (value << 4) | (uint)digit;
        }

        return value;
    }

    private AmlWriter Block(ReadOnlySpan<byte> opcode, string name, byte? flags, Action<AmlWriter> body)
    {
        AmlWriter inner = new();
        inner.PutName(name);
        if (flags is { } value)
        {
            inner.Put(value);
        }

        body(inner);
        Raw(opcode);
        return PutPackage(inner.ToArray());
    }

    /// <summary>PkgLength and content; the length counts its own bytes (20.2.4).</summary>
    private AmlWriter PutPackage(byte[] content)
    {
        int size = 1;
        while (content.Length + size >= (size == 1 ? 0x40 : 1 << (4 + (8 * (size - 1)))))
        {
            size++;
        }

        int length = content.Length + size;
        if (size == 1)
        {
            Put((byte)length);
        }
        else
        {
            Put((byte)(((size - 1) << 6) | (length & 0x0F)));
            for (int i = 0; i < size - 1; i++)
            {
                Put((byte)(length >> (4 + (8 * i))));
            }
        }

        return Raw(content);
    }

    private AmlWriter U32(uint value)
    {
        Span<byte> raw = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(raw, value);
        return Raw(raw);
    }

    private void PutName(string name)
    {
        if (name.StartsWith('\\'))
        {
            Put((byte)'\\');
            name = name[1..];
        }

        if (name.Contains('.', StringComparison.Ordinal))
        {
            string[] segments = name.Split('.');
            Put(0x2F).Put((byte)segments.Length); // MultiNamePrefix (20.2.2)
            foreach (string segment in segments)
            {
                PutName(segment);
            }

            return;
        }

        for (int i = 0; i < 4; i++)
        {
            Put(i < name.Length ? (byte)name[i] : (byte)'_');
        }
    }

    private AmlWriter Put(byte value)
    {
        _bytes.Add(value);
        return this;
    }

    private AmlWriter Raw(ReadOnlySpan<byte> bytes)
    {
        _bytes.Add(bytes);
        return this;
    }
}
