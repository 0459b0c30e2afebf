using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage;

/// <summary>
/// An image file that is a file or block device of the host. Where payload goes past the page cache, metadata does, too: two ways into one
/// file would undo each other's writes (open(2), O_DIRECT). It then goes through an aligned buffer, and blocks that are written in part
/// are read first; the clusters of an image are never smaller than a block, so no payload shares one.
/// </summary>
public sealed class RawImageFile : IImageFile
{
    private const int BufferBytes = 256 * 1024;

    private readonly RawFileBackend _file;
    private readonly FileDescriptorHandle _io;
    private readonly NativeArray<byte> _buffer = new(BufferBytes, 4096);
    private readonly NativeArray<IoVector> _vector = new(1);
    private readonly uint _block; // every transfer is whole blocks of so many bytes
    private bool _canPunch = true;

    /// <summary>Takes a file over.</summary>
    /// <param name="file">Opened with <see cref="RawFileOptions.IsImage"/>.</param>
    public RawImageFile(RawFileBackend file)
    {
        _file = file;
        _io = file.Direct ?? file.Buffered;
        _block = file.Direct is null ? 1 : Math.Max(file.DirectOffsetAlign, file.DirectMemoryAlign);
        Length = BlockFile.Inspect(file.Buffered).Size;
    }

    /// <inheritdoc/>
    public string Path => _file.Path;

    /// <inheritdoc/>
    public ulong Length { get; private set; }

    /// <summary>False for a block device.</summary>
    internal bool IsRegularFile => BlockFile.Inspect(_file.Buffered).Kind == BlockFileKind.RegularFile;

    /// <summary>Which file it is, whatever its name.</summary>
    internal FileIdentity Identity => BlockFile.Identify(_file.Buffered);

    /// <inheritdoc/>
    public uint BlockBytes => _block;

    /// <inheritdoc/>
    public bool IsWritable => !Geometry.ReadOnly;

    /// <inheritdoc/>
    public BlockGeometry Geometry => _file.Geometry;

    /// <inheritdoc/>
    public bool HasSpace => _file.HasSpace;

    /// <inheritdoc/>
    public IBlockNode CreateNode(IoLoop loop, int depth) => _file.CreateNode(loop, depth);

    /// <inheritdoc/>
    public void Read(Span<byte> destination, ulong offset)
    {
        while (!destination.IsEmpty)
        {
            ulong at = offset - (offset % _block);
            int skip = (int)(offset - at), take = Math.Min(destination.Length, BufferBytes - skip);
            ReadBlocks(at, Whole(skip + take));
            _buffer.Span.Slice(skip, take).CopyTo(destination);
            destination = destination[take..];
            offset += (uint)take;
        }
    }

    /// <inheritdoc/>
    public void Write(ReadOnlySpan<byte> bytes, ulong offset)
    {
        while (!bytes.IsEmpty)
        {
            ulong at = offset - (offset % _block);
            int skip = (int)(offset - at), take = Math.Min(bytes.Length, BufferBytes - skip), whole = Whole(skip + take);
            if (skip != 0 || whole != take)
            {
                ReadBlocks(at, whole);
            }

            bytes[..take].CopyTo(_buffer.Span[skip..]);
            WriteBlocks(at, whole);
            Length = Math.Max(Length, at + (uint)whole);
            bytes = bytes[take..];
            offset += (uint)take;
        }
    }

    /// <inheritdoc/>
    public void Flush()
    {
        int answer = BlockFile.DataSync(_file.Buffered);
        answer = answer >= 0 && _file.HasLostFlush ? -Errno.EIO : answer;
        _file.HasLostFlush |= answer < 0;
        Check(answer, "cannot be made stable; what was written last may be lost");
    }

    /// <inheritdoc/>
    public bool TryPunch(ulong offset, ulong length)
    {
        if (!_canPunch || !_file.MayDiscard)
        {
            return false;
        }

        int answer = BlockFile.Allocate(_file.Buffered, FallocateModes.PunchHole | FallocateModes.KeepSize, offset, length);
        if (answer is -Errno.EOPNOTSUPP or -Errno.ENODEV or -Errno.ENOSYS or -Errno.EINVAL)
        {
            _canPunch = false;
            return false;
        }

        Check(answer, "cannot give space back");
        return true;
    }

    /// <inheritdoc/>
    public void Grow(ulong length)
    {
        if (length > Length)
        {
            Check(BlockFile.Resize(_file.Buffered, length), "cannot grow");
            Length = length;
        }
    }

    /// <summary>It is a base from now on: see <see cref="RawFileBackend.BecomeBase"/>.</summary>
    public void BecomeBase() => _file.BecomeBase();

    /// <summary>A base becomes the image that is written: see <see cref="RawFileBackend.TryBecomeTop"/>.</summary>
    public bool TryBecomeTop() => _file.TryBecomeTop();

    /// <summary>The same open file as a raw disk, which owns it from now on; this one can still read it.</summary>
    /// <param name="size">Bytes of the disk.</param>
    internal RawFileBackend AsDisk(ulong size) => _file.AsDisk(size);

    /// <inheritdoc cref="RawFileBackend.Unlock"/>
    internal void Unlock() => _file.Unlock();

    /// <inheritdoc cref="RawFileBackend.LockAgain"/>
    internal void LockAgain() => _file.LockAgain();

    /// <inheritdoc/>
    public void Dispose()
    {
        Release();
        _file.Dispose();
    }

    /// <summary>Gives the open file back, and is over.</summary>
    internal RawFileBackend Release()
    {
        _buffer.Dispose();
        _vector.Dispose();
        return _file;
    }

    private int Whole(int bytes) => (int)((bytes + _block - 1) / _block * _block);

    private void ReadBlocks(ulong offset, int length)
    {
        int done = 0;
        while (done < length)
        {
            int answer = BlockFile.ReadAt(_io, Vector(done, length - done), 1, offset + (uint)done, nowait: false);
            Check(answer, "cannot be read");
            bool isEnd = answer == 0 || answer % _block != 0;
            Check(isEnd && offset + (uint)(done + answer) < _file.LeastLength ? -Errno.EIO : 0, "was cut: what lay behind is lost");
            if (answer == 0)
            {
                _buffer.Span[done..length].Clear();
                return;
            }

            done += answer - (int)(answer % _block);
            if (answer % _block != 0) // the end of the file lies inside a block
            {
                int end = done + (int)(answer % _block);
                _buffer.Span[end..length].Clear();
                return;
            }
        }
    }

    private void WriteBlocks(ulong offset, int length)
    {
        int done = 0;
        while (done < length)
        {
            int answer = BlockFile.WriteAt(_io, Vector(done, length - done), 1, offset + (uint)done);
            Check(answer, "cannot be written");
            int whole = answer - (int)(answer % _block);
            Check(whole == 0 ? -Errno.EIO : 0, "cannot be written");
            done += whole;
        }
    }

    private nint Vector(int offset, int length)
    {
        _vector.Span[0] = new IoVector(_buffer.AddressOf(offset), (nuint)length);
        return _vector.AddressOf(0);
    }

    private void Check(int answer, string what)
    {
        if (answer >= 0)
        {
            return;
        }

        bool full = answer is -Errno.ENOSPC or -Errno.EDQUOT;
        KernelException cause = new("image file", -answer);
        throw new BlockException(BlockErrorKind.Io, $"disk {Path} {what}: {cause.Message}", cause)
        {
            Path = Path,
            Status = full ? DiskStatus.NoSpace : DiskStatus.IoError,
        };
    }
}
