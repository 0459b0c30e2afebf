using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>
/// The memory of a vnode in a file of the same size: every page at its own offset, pages that were never touched or have only zeros are
/// holes. Chunks have checksums; several threads work at once.
/// </summary>
internal static class MemoryImage
{
    /// <summary>Bytes of a chunk.</summary>
    internal const int ChunkBytes = 1 << 20;

    // What is copied, summed and written at once: it stays in the processor's cache in between.
    private const int WindowBytes = 128 << 10;

    private const int PageBytes = 4096;

    /// <summary>Checksum of a chunk of zeros.</summary>
    internal static uint ZeroChecksum { get; } = Crc32C.OfZeros(ChunkBytes);

    /// <summary>Bytes that a file of the memory will take at most.</summary>
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
    /// <param name="progress">Hears of bytes that are done, holes among them; one call at a time, from any thread.</param>
    /// <param name="cancel">Ends it.</param>
    /// <returns>The checksums of the chunks.</returns>
    /// <exception cref="IOException">The file cannot be written.</exception>
    internal static byte[] Write(MemoryPart memory, SafeFileHandle file, Action<ulong>? progress, CancellationToken cancel)
    {
        ulong size = memory.Bytes;
        RandomAccess.SetLength(file, (long)size);
        byte[] checksums = new byte[Chunks(size) * sizeof(uint)];
        Action<ulong>? told = OneAtATime(progress);
        ChunkThreads.Run(Chunks(size), () => new Writer(memory, file, checksums, told).Write, cancel);
        return checksums;
    }

    /// <summary>Reads the memory back into a fresh one. Pages of zeros stay untouched.</summary>
    /// <param name="memory">The memory; nobody uses it yet.</param>
    /// <param name="file">The file.</param>
    /// <param name="saved">What was saved.</param>
    /// <param name="name">What errors call the file.</param>
    /// <param name="progress">Hears of bytes that are done; one call at a time, from any thread.</param>
    /// <param name="cancel">Ends it.</param>
    /// <exception cref="StateException">The file is not what was saved; the message says where.</exception>
    internal static void Read(
        VnodeMemory memory, SafeFileHandle file, SavedVnodeV1 saved, string name, Action<ulong>? progress, CancellationToken cancel)
    {
        RequireSize(memory, file, saved, name);
        ulong size = memory.Placement.Size;
        Action<ulong>? told = OneAtATime(progress);
        ChunkThreads.Run(Chunks(size), () => new Reader(memory, file, saved.Checksums, name, told).Read, cancel);
    }

    /// <summary>Refuses a file that is not of the size that was saved, or not of that of the memory.</summary>
    /// <exception cref="StateException">It is not.</exception>
    internal static void RequireSize(VnodeMemory memory, SafeFileHandle file, SavedVnodeV1 saved, string name)
    {
        ulong size = memory.Placement.Size, length = (ulong)RandomAccess.GetLength(file);
        if (saved.Bytes != size || (ulong)saved.Checksums.Length != Chunks(size) * sizeof(uint) || length != size)
        {
            throw new StateException(
                $"{name}: the file has {length} bytes, the saved vnode {saved.Vnode} {saved.Bytes} and this one {size}: "
                + "all are to be the same.");
        }
    }

    /// <summary>What is wrong with a chunk that has another checksum.</summary>
    internal static string Damaged(string name, ulong at) =>
        $"{name}: the MiB at {at} has not the content that was saved: the file is damaged or was changed.";

    /// <summary>Chunks of a memory.</summary>
    internal static ulong Chunks(ulong size) => (size + ChunkBytes - 1) / ChunkBytes;

    private static Action<ulong>? OneAtATime(Action<ulong>? progress)
    {
        if (progress is null)
        {
            return null;
        }

        Lock gate = new();
        return bytes =>
        {
            lock (gate)
            {
                progress(bytes);
            }
        };
    }

    /// <summary>Writes chunks. One thread.</summary>
    private sealed class Writer(MemoryPart memory, SafeFileHandle file, byte[] checksums, Action<ulong>? progress)
    {
        private readonly byte[] _window = new byte[WindowBytes];
        private readonly DataRanges _data = new(memory.TryFindData);

        // Memory that has no data is not looked at: its zeros only count for the checksum. So a save takes as long as what was touched.
        internal void Write(ulong chunk)
        {
            ulong at = chunk * ChunkBytes, end = Math.Min(at + ChunkBytes, memory.Bytes), filled = at;
            uint checksum = 0;
            for (; _data.TryFind(filled, out ulong start, out ulong stop) && start < end; filled = stop)
            {
                stop = Math.Min(stop, end);
                checksum = Crc32C.OfZeros(start - filled, checksum);
                for (ulong from = start; from < stop; from += WindowBytes)
                {
                    Span<byte> bytes = _window.AsSpan(0, (int)Math.Min(WindowBytes, stop - from));
                    memory.Memory.CopyTo(from, bytes);
                    checksum = Crc32C.Of(bytes, checksum);
                    for (int run = 0; PageRuns.TryFind(bytes, run, out int first, out int over); run = over)
                    {
                        RandomAccess.Write(file, bytes[first..over], (long)from + first);
                    }
                }
            }

            checksum = Crc32C.OfZeros(end - filled, checksum);
            BinaryPrimitives.WriteUInt32LittleEndian(checksums.AsSpan((int)chunk * sizeof(uint)), checksum);
            progress?.Invoke(end - at);
        }
    }

    /// <summary>Reads chunks. One thread.</summary>
    private sealed class Reader(VnodeMemory memory, SafeFileHandle file, byte[] checksums, string name, Action<ulong>? progress)
    {
        private readonly byte[] _window = new byte[WindowBytes];
        private readonly DataRanges _data =
            new((ulong from, out ulong start, out ulong end) => DataExtents.TryFindNext(file, from, out start, out end));

        // As it was written: what is a hole in the file is zeros, and counts for the checksum only.
        internal void Read(ulong chunk)
        {
            ulong at = chunk * ChunkBytes, end = Math.Min(at + ChunkBytes, memory.Placement.Size), filled = at;
            uint checksum = 0;
            for (; _data.TryFind(filled, out ulong start, out ulong stop) && start < end; filled = stop)
            {
                // A file system may have smaller blocks than pages, memory has not.
                start = start / PageBytes * PageBytes;
                stop = Math.Min((stop + PageBytes - 1) / PageBytes * PageBytes, end);
                checksum = Crc32C.OfZeros(start - filled, checksum);
                for (ulong from = start; from < stop; from += WindowBytes)
                {
                    Span<byte> bytes = _window.AsSpan(0, (int)Math.Min(WindowBytes, stop - from));
                    ReadAll(bytes, from);
                    checksum = Crc32C.Of(bytes, checksum);
                    Place(from, bytes);
                }
            }

            checksum = Crc32C.OfZeros(end - filled, checksum);
            if (checksum != BinaryPrimitives.ReadUInt32LittleEndian(checksums.AsSpan((int)chunk * sizeof(uint))))
            {
                throw new StateException(Damaged(name, at));
            }

            progress?.Invoke(end - at);
        }

        private void Place(ulong at, ReadOnlySpan<byte> bytes)
        {
            // Huge pages of memory that comes and goes are not there yet, and one that the host has not would be a SIGBUS.
            if (memory.PageSize > PageBytes && !memory.TryPopulate(at / memory.PageSize * memory.PageSize, memory.PageSize, out _))
            {
                throw new StateException($"{name}: this host has no page of {memory.PageSize >> 20} MiB left for the memory at {at}.");
            }

            for (int run = 0; PageRuns.TryFind(bytes, run, out int first, out int over); run = over)
            {
                memory.Fill(at + (ulong)first, bytes[first..over]);
            }
        }

        private void ReadAll(Span<byte> bytes, ulong at)
        {
            for (int done = 0; done < bytes.Length;)
            {
                int count = RandomAccess.Read(file, bytes[done..], (long)at + done);
                done += count > 0 ? count : throw new StateException($"{name}: the file ends at {at + (ulong)done}.");
            }
        }
    }
}
