using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>
/// The memory of a vnode in a file of the same size: every page at its own offset, pages that were never touched are holes. Chunks have
/// checksums.
/// </summary>
internal static class MemoryImage
{
    /// <summary>Bytes of a chunk.</summary>
    internal const int ChunkBytes = 1 << 20;

    private const int PageBytes = 4096;

    private static uint ZeroChecksum { get; } = Crc32C.Of(new byte[ChunkBytes]);

    /// <summary>Bytes that a file of the memory will take.</summary>
    internal static ulong DataBytes(MemoryPart memory)
    {
        ulong total = 0;
        for (ulong at = 0; memory.TryFindData(at, out ulong start, out ulong end); at = end)
        {
            total += end - start;
        }

        return total;
    }

    /// <summary>Writes the memory; the machine is at rest.</summary>
    /// <param name="memory">The memory.</param>
    /// <param name="file">An empty file.</param>
    /// <param name="progress">Hears of bytes that are done, holes among them.</param>
    /// <param name="cancel">Ends it.</param>
    /// <returns>The checksums of the chunks.</returns>
    /// <exception cref="IOException">The file cannot be written.</exception>
    internal static byte[] Write(MemoryPart memory, SafeFileHandle file, Action<ulong>? progress, CancellationToken cancel)
    {
        ulong size = memory.Bytes;
        RandomAccess.SetLength(file, (long)size);
        byte[] checksums = new byte[Chunks(size) * sizeof(uint)], chunk = new byte[ChunkBytes];
        Extents data = new(memory.TryFindData);
        for (ulong at = 0; at < size; at += ChunkBytes)
        {
            cancel.ThrowIfCancellationRequested();
            ulong end = Math.Min(at + ChunkBytes, size);
            chunk.AsSpan().Clear();
            bool isHole = true;
            for (ulong from = at; from < end && data.TryFind(from, out ulong start, out ulong stop) && start < end; from = stop)
            {
                stop = Math.Min(stop, end);
                Span<byte> piece = chunk.AsSpan((int)(start - at), (int)(stop - start));
                memory.Memory.CopyTo(start, piece);
                RandomAccess.Write(file, piece, (long)start);
                isHole = false;
            }

            uint checksum = isHole && end - at == ChunkBytes ? ZeroChecksum : Crc32C.Of(chunk.AsSpan(0, (int)(end - at)));
            BinaryPrimitives.WriteUInt32LittleEndian(checksums.AsSpan((int)(at / ChunkBytes) * sizeof(uint)), checksum);
            progress?.Invoke(end - at);
        }

        return checksums;
    }

    /// <summary>Reads the memory back into a fresh one. Pages of zeros stay untouched.</summary>
    /// <exception cref="StateException">The file is not what was saved; the message says where.</exception>
    internal static void Read(
        VnodeMemory memory, SafeFileHandle file, SavedVnodeV1 saved, string name, Action<ulong>? progress, CancellationToken cancel)
    {
        ulong size = memory.Placement.Size, length = (ulong)RandomAccess.GetLength(file);
        if (saved.Bytes != size || (ulong)saved.Checksums.Length != Chunks(size) * sizeof(uint) || length != size)
        {
            throw new StateException(
                $"{name}: the file has {length} bytes, the saved vnode {saved.Vnode} {saved.Bytes} and this one {size}: "
                + "all are to be the same.");
        }

        byte[] chunk = new byte[ChunkBytes];
        Extents data = new((ulong from, out ulong start, out ulong end) => DataExtents.TryFindNext(file, from, out start, out end));
        for (ulong at = 0; at < size; at += ChunkBytes)
        {
            cancel.ThrowIfCancellationRequested();
            int count = (int)Math.Min(ChunkBytes, size - at);
            bool isHole = !data.TryFind(at, out ulong start, out _) || start >= at + (ulong)count;
            Span<byte> bytes = chunk.AsSpan(0, count);
            if (isHole)
            {
                bytes.Clear();
            }
            else
            {
                ReadAll(file, bytes, at, name);
            }

            uint checksum = isHole && count == ChunkBytes ? ZeroChecksum : Crc32C.Of(bytes);
            if (checksum != BinaryPrimitives.ReadUInt32LittleEndian(saved.Checksums.AsSpan((int)(at / ChunkBytes) * sizeof(uint))))
            {
                throw new StateException(
                    $"{name}: the MiB at {at} has not the content that was saved: the file is damaged or was changed.");
            }

            if (!isHole)
            {
                Place(memory, at, bytes, name);
            }

            progress?.Invoke((ulong)count);
        }
    }

    private static void Place(VnodeMemory memory, ulong at, ReadOnlySpan<byte> bytes, string name)
    {
        // Huge pages of memory that comes and goes are not there yet, and one that the host has not would be a SIGBUS.
        if (memory.PageSize > PageBytes && !memory.TryPopulate(at / memory.PageSize * memory.PageSize, memory.PageSize, out _))
        {
            throw new StateException($"{name}: this host has no page of {memory.PageSize >> 20} MiB left for the memory at {at}.");
        }

        for (int page = 0; page < bytes.Length; page += PageBytes)
        {
            ReadOnlySpan<byte> content = bytes[page..Math.Min(page + PageBytes, bytes.Length)];
            if (content.ContainsAnyExcept((byte)0))
            {
                memory.CopyFrom(at + (ulong)page, content);
            }
        }
    }

    private static void ReadAll(SafeFileHandle file, Span<byte> bytes, ulong at, string name)
    {
        for (int done = 0; done < bytes.Length;)
        {
            int count = RandomAccess.Read(file, bytes[done..], (long)at + done);
            done += count > 0 ? count : throw new StateException($"{name}: the file ends at {at + (ulong)done}.");
        }
    }

    private static ulong Chunks(ulong size) => (size + ChunkBytes - 1) / ChunkBytes;

    private delegate bool FindData(ulong from, out ulong start, out ulong end);

    /// <summary>Ranges with data in ascending order, each asked for once.</summary>
    private sealed class Extents(FindData next)
    {
        private ulong _start, _end;
        private bool _isOver;

        /// <summary>The range that holds the offset, from there on, or the next one.</summary>
        internal bool TryFind(ulong from, out ulong start, out ulong end)
        {
            if (!_isOver && from >= _end)
            {
                _isOver = !next(from, out _start, out _end);
            }

            (start, end) = (Math.Max(_start, from), _end);
            return !_isOver;
        }
    }
}
