using System.Buffers.Binary;
using System.Text;

namespace Vmm.Devices.Firmware;

/// <summary>
/// What a firmware can read of its machine: items by number, and files by name, which have numbers of their own (QEMU's
/// docs/specs/fw_cfg). All are there before the guest starts; a file's bytes may change later, its length never.
/// </summary>
public sealed class FwCfgItems
{
    /// <summary>Numbers of items that have no name.</summary>
    public const ushort Signature = 0x00, Revision = 0x01, CpuCount = 0x05, MostCpus = 0x0F, Directory = 0x19, FirstFile = 0x20;

    /// <summary>Most files.</summary>
    public const int MostFiles = 64;

    /// <summary>Most bytes of a file's name, without its zero.</summary>
    public const int MostNameBytes = 55;

    /// <summary>Revision: the ports, and transfers by DMA.</summary>
    internal const uint RevisionBits = 3;

    private const int EntryBytes = 64;

    private readonly Dictionary<ushort, byte[]> _items = [];
    private readonly List<(string Name, byte[] Data)> _files = [];

    /// <summary>The items that every machine has.</summary>
    public FwCfgItems()
    {
        _items[Signature] = [.. "QEMU"u8];
        byte[] revision = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(revision, RevisionBits);
        _items[Revision] = revision;
        _items[Directory] = new byte[4];
    }

    /// <summary>Adds an item of 16 bits.</summary>
    /// <param name="key">Its number.</param>
    /// <param name="value">What it holds.</param>
    public void Add(ushort key, ushort value)
    {
        byte[] data = new byte[2];
        BinaryPrimitives.WriteUInt16LittleEndian(data, value);
        _items.Add(key, data);
    }

    /// <summary>Adds a file.</summary>
    /// <exception cref="ArgumentException">
    /// The name is too long, not ASCII, or taken; the file is larger than a request may be; or there are too many files.
    /// </exception>
    public void AddFile(string name, byte[] data)
    {
        bool fits = name.Length is > 0 and <= MostNameBytes && Ascii.IsValid(name) && data.Length <= FwCfg.MostBytes;
        if (!fits || _files.Exists(file => string.Equals(file.Name, name, StringComparison.Ordinal)) || _files.Count == MostFiles)
        {
            throw new ArgumentException(
                $"a firmware cannot be given a file \"{name}\" of {data.Length} bytes beside {_files.Count} others", nameof(name));
        }

        _items.Add((ushort)(FirstFile + _files.Count), data);
        _files.Add((name, data));
        _items[Directory] = WriteDirectory();
    }

    /// <summary>Puts other bytes into a file. The guest may read meanwhile: it finds old bytes or new ones.</summary>
    /// <exception cref="ArgumentException">There is no such file, or it has another length.</exception>
    public void Replace(string name, ReadOnlySpan<byte> data)
    {
        byte[]? file = _files.Find(each => string.Equals(each.Name, name, StringComparison.Ordinal)).Data;
        if (file?.Length != data.Length)
        {
            throw new ArgumentException($"a firmware's file \"{name}\" cannot get {data.Length} bytes", nameof(name));
        }

        data.CopyTo(file);
    }

    /// <summary>The bytes of an item; none for a number that has none.</summary>
    internal ReadOnlySpan<byte> Find(ushort key) => _items.TryGetValue(key, out byte[]? data) ? data : default;

    // A count, then for each file: length, number, two zeros, name. Big endian.
    private byte[] WriteDirectory()
    {
        byte[] directory = new byte[4 + (_files.Count * EntryBytes)];
        BinaryPrimitives.WriteInt32BigEndian(directory, _files.Count);
        for (int i = 0; i < _files.Count; i++)
        {
            Span<byte> entry = directory.AsSpan(4 + (i * EntryBytes), EntryBytes);
            BinaryPrimitives.WriteInt32BigEndian(entry, _files[i].Data.Length);
            BinaryPrimitives.WriteUInt16BigEndian(entry[4..], (ushort)(FirstFile + i));
            Encoding.ASCII.GetBytes(_files[i].Name, entry[8..]);
        }

        return directory;
    }
}
