using System.Security.Cryptography;
using Microsoft.Win32.SafeHandles;
using ZstdSharp;

namespace Vmm.Storage.Backup;

/// <summary>
/// Reads a sealed delta that may hold anything. Opening it checks header, seal and table; an extent is checked when it is read. No size
/// that the file claims becomes memory. For one thread.
/// </summary>
internal sealed class DeltaReader : IDisposable
{
    private readonly SafeFileHandle _file;
    private readonly Decompressor _decompressor = new();
    private readonly byte[] _stored = new byte[DeltaFormat.ExtentBytes];
    private readonly byte[] _leaf = new byte[DeltaFormat.HashBytes];

    private DeltaReader(string path, SafeFileHandle file)
    {
        Path = path;
        _file = file;
        FileBytes = (ulong)RandomAccess.GetLength(file);
        byte[] header = new byte[DeltaFormat.HeaderBytes], seal = new byte[DeltaFormat.SealBytes];
        if (FileBytes < DeltaFormat.HeaderBytes + DeltaFormat.SealBytes)
        {
            throw DeltaFormat.Damaged(path, $"it has only {FileBytes} bytes: it was cut, or never finished");
        }

        ReadAt(header, 0);
        ReadAt(seal, FileBytes - DeltaFormat.SealBytes);
        Header = DeltaHeader.Parse(header, path);
        Seal = DeltaSeal.Parse(seal, header, FileBytes, path);
        CheckTable();
    }

    /// <summary>The file.</summary>
    internal string Path { get; }

    /// <summary>Its bytes.</summary>
    internal ulong FileBytes { get; }

    /// <summary>Its header.</summary>
    internal DeltaHeader Header { get; }

    /// <summary>Its seal.</summary>
    internal DeltaSeal Seal { get; }

    /// <summary>Opens a file.</summary>
    /// <exception cref="BlockException">It cannot be opened, is no sealed delta, or is damaged.</exception>
    internal static DeltaReader Open(string path)
    {
        SafeFileHandle? file = null;
        try
        {
            file = File.OpenHandle(path);
            return new DeltaReader(path, file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            file?.Dispose();
            throw e is FileNotFoundException or DirectoryNotFoundException
                ? new BlockException(BlockErrorKind.NotFound, $"backup file {path} is missing", e) { Path = path }
                : DeltaFormat.Failed(path, "cannot be read", e);
        }
        catch
        {
            file?.Dispose();
            throw;
        }
    }

    /// <summary>Goes through the table from its beginning.</summary>
    internal DeltaCursor Begin() => new(this);

    /// <summary>Reads an extent and checks it.</summary>
    /// <param name="entry">Where it is, as the table says.</param>
    /// <param name="content">Gets all its bytes.</param>
    /// <exception cref="BlockException">It is damaged, or the host failed.</exception>
    internal void Read(in DeltaEntry entry, Span<byte> content)
    {
        if (entry.Stored == 0)
        {
            content.Clear();
        }
        else if (entry.Stored == DeltaFormat.ExtentBytes)
        {
            ReadAt(content, entry.Offset);
        }
        else
        {
            Span<byte> stored = _stored.AsSpan(0, (int)entry.Stored);
            ReadAt(stored, entry.Offset);
            if (!TryDecompress(stored, content))
            {
                throw DeltaFormat.Damaged(Path, "its bytes cannot be decompressed", entry.Extent);
            }
        }

        _ = SHA256.HashData(content, _leaf);
        if (!entry.Leaf.Span.SequenceEqual(_leaf))
        {
            throw DeltaFormat.Damaged(Path, "its bytes do not match their hash", entry.Extent);
        }
    }

    /// <summary>Reads bytes of the file.</summary>
    /// <exception cref="BlockException">It ends before, or the host failed.</exception>
    internal void ReadAt(Span<byte> bytes, ulong offset)
    {
        try
        {
            while (!bytes.IsEmpty)
            {
                int read = RandomAccess.Read(_file, bytes, (long)offset);
                if (read == 0)
                {
                    throw DeltaFormat.Damaged(Path, $"it ends at byte {offset}: it was cut");
                }

                bytes = bytes[read..];
                offset += (uint)read;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw DeltaFormat.Failed(Path, "cannot be read", e);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _file.Dispose();
        _decompressor.Dispose();
    }

    private bool TryDecompress(ReadOnlySpan<byte> stored, Span<byte> content)
    {
        try
        {
            return _decompressor.TryUnwrap(stored, content, out int written) && written == content.Length;
        }
        catch (ZstdException)
        {
            return false;
        }
    }

    // The order of the extents, and stored bytes that fill the file up to the table, are the cursor's to check.
    private void CheckTable()
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] part = new byte[DeltaFormat.EntryBytes * 1024];
        ulong end = FileBytes - DeltaFormat.SealBytes;
        for (ulong at = Seal.TableOffset; at < end; at += (uint)part.Length)
        {
            Span<byte> take = part.AsSpan(0, (int)Math.Min((ulong)part.Length, end - at));
            ReadAt(take, at);
            hash.AppendData(take);
        }

        if (!hash.GetHashAndReset().AsSpan().SequenceEqual(Seal.TableHash))
        {
            throw DeltaFormat.Damaged(Path, "its table does not match its hash");
        }

        DeltaCursor cursor = Begin();
        while (cursor.MoveNext())
        {
            // each step checks its entry
        }
    }
}
