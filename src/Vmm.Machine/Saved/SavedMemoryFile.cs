using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.Memory.Paging;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>
/// A memory file of a saved VM that its machine takes pages from while it runs. It is read, never mapped: a file that is cut off meanwhile
/// is an error, not a signal. Any number of threads.
/// </summary>
internal sealed class SavedMemoryFile : ISavedPages
{
    private const int WindowBytes = 128 << 10; // read and summed at once: it stays in the processor's cache in between

    private readonly SafeFileHandle _file;
    private readonly byte[] _checksums;
    private readonly string _name;
    private readonly bool[] _isHole;

    /// <param name="memory">The memory that it is for.</param>
    /// <param name="file">The file, this object's from here on, also when this throws.</param>
    /// <param name="saved">What was saved.</param>
    /// <param name="name">What errors call the file.</param>
    /// <exception cref="StateException">The file is not what was saved, as far as that can be seen without reading it.</exception>
    /// <exception cref="KernelException">The file cannot say where it has data.</exception>
    internal SavedMemoryFile(VnodeMemory memory, SafeFileHandle file, SavedVnodeV1 saved, string name)
    {
        (_file, _checksums, _name) = (file, saved.Checksums, name);
        try
        {
            MemoryImage.RequireSize(memory, file, saved, name);
            _isHole = FindHoles(memory.Placement.Size);
            _ = RandomAccess.Read(file, stackalloc byte[1], 0); // what the runtime asks of a new handle, it asks before the filters
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public bool HasContent(ulong chunk) => !_isHole[chunk];

    /// <inheritdoc/>
    public void Read(ulong chunk, Span<byte> content)
    {
        ulong at = chunk * MemoryImage.ChunkBytes;
        uint checksum = 0;
        for (int from = 0; from < content.Length; from += WindowBytes)
        {
            Span<byte> window = content[from..Math.Min(from + WindowBytes, content.Length)];
            ReadAll(window, at + (ulong)from);
            checksum = Crc32C.Of(window, checksum);
        }

        if (checksum != ChecksumOf(chunk))
        {
            throw new SavedPagesException(MemoryImage.Damaged(_name, at));
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _file.Dispose();

    // A chunk without data is zeros, if those were saved. One with some is checked as a whole when it is read: here, where a guest waits,
    // each chunk costs one look for the begin of data at most, however many pieces it is in.
    private bool[] FindHoles(ulong size)
    {
        bool[] holes = new bool[MemoryImage.Chunks(size)];
        ulong? data = 0; // where the next is; null: there is none
        for (ulong chunk = 0; chunk < (ulong)holes.Length; chunk++)
        {
            ulong at = chunk * MemoryImage.ChunkBytes, end = at + MemoryImage.ChunkBytes;
            if (data <= at)
            {
                data = DataExtents.TryFindStart(_file, at, out ulong start) ? start : null;
            }

            bool isHole = end <= size && !(data < end);
            if (isHole && ChecksumOf(chunk) != MemoryImage.ZeroChecksum)
            {
                throw new StateException(MemoryImage.Damaged(_name, at));
            }

            holes[chunk] = isHole;
        }

        return holes;
    }

    private uint ChecksumOf(ulong chunk) => BinaryPrimitives.ReadUInt32LittleEndian(_checksums.AsSpan((int)chunk * sizeof(uint)));

    private void ReadAll(Span<byte> bytes, ulong at)
    {
        for (int done = 0; done < bytes.Length;)
        {
            int count;
            try
            {
                count = RandomAccess.Read(_file, bytes[done..], (long)at + done);
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
            {
                throw new SavedPagesException($"{_name}: the memory at {at} cannot be read: {cause.Message}", cause);
            }

            done += count > 0 ? count : throw new SavedPagesException($"{_name}: the file ends at {at + (ulong)done}: it was cut off.");
        }
    }
}
