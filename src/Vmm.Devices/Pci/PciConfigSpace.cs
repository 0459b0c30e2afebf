using System.Buffers.Binary;

namespace Vmm.Devices.Pci;

/// <summary>
/// The 4 KiB configuration space of one function: bytes and a mask of the bits that software may write (PCI Express base spec 7.5).
/// </summary>
public sealed class PciConfigSpace
{
    /// <summary>Size in bytes, with the extended space.</summary>
    public const int Size = 4096;

    private readonly byte[] _data = new byte[Size];
    private readonly byte[] _writable = new byte[Size];
    private int _nextCapability = 0x40;
    private int _lastCapabilityPointer = 0x34;

    /// <summary>Reads 16 bits.</summary>
    public ushort U16(int offset) => BinaryPrimitives.ReadUInt16LittleEndian(_data.AsSpan(offset));

    /// <summary>Reads 32 bits.</summary>
    public uint U32(int offset) => BinaryPrimitives.ReadUInt32LittleEndian(_data.AsSpan(offset));

    /// <summary>Sets a byte whatever the mask says.</summary>
    public void Set8(int offset, byte value) => _data[offset] = value;

    /// <summary>Sets 16 bits whatever the mask says.</summary>
    public void Set16(int offset, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(_data.AsSpan(offset), value);

    /// <summary>Sets 32 bits whatever the mask says.</summary>
    public void Set32(int offset, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(_data.AsSpan(offset), value);

    /// <summary>Lets software write the bits of <paramref name="mask"/>.</summary>
    public void Allow16(int offset, ushort mask) => BinaryPrimitives.WriteUInt16LittleEndian(_writable.AsSpan(offset), mask);

    /// <summary>Lets software write the bits of <paramref name="mask"/>.</summary>
    public void Allow32(int offset, uint mask) => BinaryPrimitives.WriteUInt32LittleEndian(_writable.AsSpan(offset), mask);

    /// <summary>Appends a capability (7.5.3: id, next pointer, then <paramref name="body"/>) and returns its offset.</summary>
    /// <exception cref="InvalidOperationException">The first 256 bytes are full.</exception>
    public int AddCapability(byte id, ReadOnlySpan<byte> body)
    {
        int offset = _nextCapability;
        int length = (body.Length + 2 + 3) & ~3;
        if (offset + length > 0x100)
        {
            throw new InvalidOperationException("PCI configuration space is out of room for capabilities.");
        }

        _data[offset] = id;
        body.CopyTo(_data.AsSpan(offset + 2));
        _data[_lastCapabilityPointer] = (byte)offset;
        _lastCapabilityPointer = offset + 1;
        _nextCapability = offset + length;
        _data[0x06] |= 0x10; // status: capabilities list
        return offset;
    }

    /// <summary>The bits that software may write, up to the last of them, for saved state.</summary>
    internal byte[] CaptureWritable()
    {
        int length = _writable.AsSpan().LastIndexOfAnyExcept((byte)0) + 1;
        byte[] bytes = new byte[length];
        for (int i = 0; i < length; i++)
        {
            bytes[i] = (byte)(_data[i] & _writable[i]);
        }

        return bytes;
    }

    /// <summary>Software read; beyond the space all ones.</summary>
    public void Read(int offset, Span<byte> data)
    {
        for (int i = 0; i < data.Length; i++)
        {
            data[i] = offset + i < Size ? _data[offset + i] : (byte)0xFF;
        }
    }

    /// <summary>Software write, through the mask.</summary>
    public void Write(int offset, ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length && offset + i < Size; i++)
        {
            byte mask = _writable[offset + i];
            _data[offset + i] = (byte)((_data[offset + i] & ~mask) | (data[i] & mask));
        }
    }
}
