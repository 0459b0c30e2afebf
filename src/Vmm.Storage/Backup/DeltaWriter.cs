using System.Buffers.Binary;
using System.Security.Cryptography;
using ZstdSharp;

namespace Vmm.Storage.Backup;

/// <summary>
/// Writes a sealed delta: header, stored extents, table, seal. The table is kept in a file beside it meanwhile, so memory does not grow
/// with the disk. What it leaves when it is not finished has no seal. For one thread.
/// </summary>
internal sealed class DeltaWriter : IDisposable
{
    // Compressed bytes that save less than a sixteenth are not worth the time to read them.
    private const int WorthBytes = DeltaFormat.ExtentBytes - (DeltaFormat.ExtentBytes / 16);

    private readonly string _path;
    private readonly byte[] _header;
    private readonly FileStream _file, _table;
    private readonly Compressor _compressor = new(level: 1);
    private readonly byte[] _packed = new byte[Compressor.GetCompressBound(DeltaFormat.ExtentBytes)];
    private readonly IncrementalHash _tableHash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private ulong _entries, _next;

    /// <summary>Begins a file.</summary>
    /// <exception cref="BlockException">It exists, or the host failed.</exception>
    internal DeltaWriter(string path, DeltaHeader header)
    {
        _path = path;
        _header = header.Encode();
        try
        {
            _file = new FileStream(path, FileMode.CreateNew, FileAccess.Write, FileShare.None, 1 << 20);
            _table = new FileStream(
                path + ".table", FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None, 1 << 16, FileOptions.DeleteOnClose);
            _file.Write(_header);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Dispose();
            throw DeltaFormat.Failed(path, "cannot be made", e);
        }
    }

    /// <summary>Bytes of the file so far.</summary>
    internal ulong Bytes => (ulong)_file.Position;

    /// <summary>Entries so far.</summary>
    internal ulong Entries => _entries;

    /// <summary>Adds an extent; they come in the order of the disk.</summary>
    /// <param name="extent">Its number.</param>
    /// <param name="content">All its bytes; none when they are zeros.</param>
    /// <param name="leaf">Its hash.</param>
    /// <exception cref="BlockException">The host failed.</exception>
    internal void Add(ulong extent, ReadOnlySpan<byte> content, ReadOnlySpan<byte> leaf)
    {
        if (extent < _next || content.Length is not (0 or DeltaFormat.ExtentBytes))
        {
            throw new ArgumentException($"extent {extent} of {content.Length} bytes after {_next}", nameof(extent));
        }

        int packed = content.IsEmpty ? 0 : _compressor.Wrap(content, _packed);
        ReadOnlySpan<byte> stored = content.IsEmpty || packed > WorthBytes ? content : _packed.AsSpan(0, packed);
        Span<byte> entry = stackalloc byte[DeltaFormat.EntryBytes];
        BinaryPrimitives.WriteUInt32LittleEndian(entry, (uint)extent);
        BinaryPrimitives.WriteUInt32LittleEndian(entry[4..], (uint)stored.Length);
        leaf.CopyTo(entry[8..]);
        _tableHash.AppendData(entry);
        try
        {
            _file.Write(stored);
            _table.Write(entry);
        }
        catch (IOException e)
        {
            throw DeltaFormat.Failed(_path, "cannot be written", e);
        }

        _next = extent + 1;
        _entries++;
    }

    /// <summary>Writes table and seal, and makes the file stable.</summary>
    /// <param name="root">The root of the disk's tree.</param>
    /// <returns>The seal's hash.</returns>
    /// <exception cref="BlockException">The host failed.</exception>
    internal byte[] Finish(byte[] root)
    {
        try
        {
            ulong offset = (ulong)_file.Position;
            _table.Position = 0;
            _table.CopyTo(_file, 1 << 16);
            DeltaSeal seal = new() { Entries = _entries, TableOffset = offset, TableHash = _tableHash.GetHashAndReset(), Root = root };
            byte[] bytes = seal.Encode(_header);
            _file.Write(bytes);
            _file.Flush(flushToDisk: true);
            return bytes[^DeltaFormat.HashBytes..];
        }
        catch (IOException e)
        {
            throw DeltaFormat.Failed(_path, "cannot be written", e);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Close(_file);
        Close(_table);
        _compressor.Dispose();
        _tableHash.Dispose();
    }

    // What is buffered may not find room any more; whoever writes has been told of that.
    private static void Close(FileStream? file)
    {
        try
        {
            file?.Dispose();
        }
        catch (IOException)
        {
        }
    }
}
