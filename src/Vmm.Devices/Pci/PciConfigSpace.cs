namespace Vmm.Devices.Pci;

/// <summary>
/// The 4 KiB configuration space of one function (PCI Express base spec 7.5) as a list of described fields. Bytes that no field describes
/// read as zeros, and writes to them vanish.
/// </summary>
public sealed class PciConfigSpace
{
    /// <summary>Size in bytes, with the extended space.</summary>
    public const int Size = 4096;

    private const int CapabilitiesStart = 0x40, CapabilitiesEnd = 0x100;
    private const uint StatusCapabilities = 0x10, StatusErrors = 0xF900;

    private readonly List<PciField> _fields = [];
    private readonly byte[] _fieldAt = new byte[Size]; // 1 + its index, for each byte; 0 is none
    private readonly PciField _firstCapability;
    private PciCapability? _lastCapability;
    private int _capabilitiesEnd = CapabilitiesStart;

    /// <summary>A space with a status register and an empty list of capabilities.</summary>
    public PciConfigSpace()
    {
        Status = Add(new PciField(0x06, 2, 0) { ClearedByOnes = StatusErrors });
        _firstCapability = Add(new PciField(0x34, 1, 0));
    }

    /// <summary>The status register (7.5.1.1.4).</summary>
    public PciField Status { get; }

    /// <summary>All fields, in the order in which they were added: the same for every function of one kind.</summary>
    internal IReadOnlyList<PciField> Fields => _fields;

    /// <summary>Adds a field.</summary>
    /// <exception cref="ArgumentException">It is not aligned, or covers another one.</exception>
    /// <exception cref="InvalidOperationException">There are too many.</exception>
    public PciField Add(PciField field)
    {
        if (field.Width is not (1 or 2 or 4) || field.Offset < 0 || field.Offset > Size - field.Width || field.Offset % field.Width != 0)
        {
            throw new ArgumentException($"a PCI configuration field cannot have {field.Width} bytes at 0x{field.Offset:x}", nameof(field));
        }

        Span<byte> bytes = _fieldAt.AsSpan(field.Offset, field.Width);
        if (bytes.ContainsAnyExcept((byte)0))
        {
            throw new ArgumentException($"a PCI configuration field covers another one at 0x{field.Offset:x}", nameof(field));
        }

        if (_fields.Count == byte.MaxValue)
        {
            throw new InvalidOperationException($"a PCI function has more than {byte.MaxValue} configuration fields");
        }

        _fields.Add(field);
        bytes.Fill((byte)_fields.Count);
        return field;
    }

    /// <summary>Appends a capability of <paramref name="length"/> bytes, whose fields the caller adds.</summary>
    /// <exception cref="InvalidOperationException">The first 256 bytes are full.</exception>
    public PciCapability AddCapability(byte id, int length)
    {
        int offset = _capabilitiesEnd, end = offset + ((length + 3) & ~3);
        if (end > CapabilitiesEnd)
        {
            throw new InvalidOperationException("PCI configuration space is out of room for capabilities");
        }

        PciCapability capability = new(this, id, offset, length);
        if (_lastCapability is { } last)
        {
            last.SetNext(offset);
        }
        else
        {
            _firstCapability.SetFixed((uint)offset);
            Status.SetFixed(Status.ResetValue | StatusCapabilities);
        }

        _lastCapability = capability;
        _capabilitiesEnd = end;
        return capability;
    }

    /// <summary>The bits that software can change, each at its place, up to the last of them: for saved state.</summary>
    internal byte[] CaptureWritten()
    {
        byte[] bytes = new byte[_fields.Where(f => f.Changeable != 0).Select(f => f.Offset + f.Width).DefaultIfEmpty().Max()];
        foreach (PciField field in _fields.Where(f => f.Changeable != 0))
        {
            uint value = field.Value & field.Changeable;
            for (int i = 0; i < field.Width; i++)
            {
                bytes[field.Offset + i] = (byte)(value >> (8 * i));
            }
        }

        return bytes;
    }

    /// <summary>
    /// Takes what <see cref="CaptureWritten"/> of the same kind of function gave. No handler is called, and no other bit changes.
    /// </summary>
    internal void RestoreWritten(ReadOnlySpan<byte> bytes)
    {
        foreach (PciField field in _fields.Where(f => f.Changeable != 0))
        {
            uint value = 0;
            for (int i = 0; i < field.Width; i++)
            {
                value |= (uint)bytes[field.Offset + i] << (8 * i);
            }

            field.Value = (field.Value & ~field.Changeable) | (value & field.Changeable);
        }
    }

    /// <summary>Software read; beyond the space all ones.</summary>
    public void Read(int offset, Span<byte> data)
    {
        for (int i = 0; i < data.Length;)
        {
            int at = offset + i;
            if (FieldAt(at) is { } field)
            {
                field.Reading?.Invoke(field);
                int end = Math.Min(field.Offset + field.Width - offset, data.Length);
                for (; i < end; i++)
                {
                    data[i] = (byte)(field.Value >> (8 * (offset + i - field.Offset)));
                }
            }
            else
            {
                data[i++] = (uint)at < Size ? (byte)0 : (byte)0xFF;
            }
        }
    }

    /// <summary>Software write, through the masks; then the handlers of the fields that it touched, lowest first.</summary>
    public void Write(int offset, ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length;)
        {
            if (FieldAt(offset + i) is not { } field)
            {
                i++;
                continue;
            }

            uint bits = 0, lanes = 0;
            int end = Math.Min(field.Offset + field.Width - offset, data.Length);
            for (; i < end; i++)
            {
                int shift = 8 * (offset + i - field.Offset);
                bits |= (uint)data[i] << shift;
                lanes |= 0xFFu << shift;
            }

            field.Store(bits, lanes);
        }

        for (int i = 0; i < data.Length;)
        {
            if (FieldAt(offset + i) is { } field)
            {
                field.Written?.Invoke(field);
                i = field.Offset + field.Width - offset;
            }
            else
            {
                i++;
            }
        }
    }

    /// <summary>All fields have the values they have after reset. No handler is called.</summary>
    internal void Reset()
    {
        foreach (PciField field in _fields)
        {
            field.Value = field.ResetValue;
        }
    }

    private PciField? FieldAt(int offset) => (uint)offset < Size && _fieldAt[offset] is > 0 and byte index ? _fields[index - 1] : null;
}
