using Vmm.Io;
using Vmm.Storage;

namespace Vmm.Testing.Images;

/// <summary>An image file in an array, which grows to a bound that no sound tool needs for a small image.</summary>
internal sealed class ByteImage(byte[] bytes) : IImageFile
{
    /// <summary>Most bytes that the file may get.</summary>
    internal const ulong Most = 64 << 20;

    private byte[] _bytes = bytes;

    public string Path => "image";

    public ulong Length { get; private set; } = (ulong)bytes.Length;

    /// <summary>Writes so far, also those that only made it longer.</summary>
    internal long Writes { get; private set; }

    public bool IsWritable => true;

    public BlockGeometry Geometry => throw new NotSupportedException();

    public IBlockNode CreateNode(IoLoop loop, int depth) => throw new NotSupportedException();

    public void Read(Span<byte> destination, ulong offset)
    {
        int have = offset >= Length ? 0 : (int)Math.Min((ulong)destination.Length, Length - offset);
        _bytes.AsSpan(have == 0 ? 0 : (int)offset, have).CopyTo(destination);
        destination[have..].Clear();
    }

    public void Write(ReadOnlySpan<byte> bytes, ulong offset)
    {
        Grow(offset + (uint)bytes.Length);
        bytes.CopyTo(_bytes.AsSpan((int)offset));
    }

    public void Flush()
    {
    }

    public bool TryPunch(ulong offset, ulong length) => false;

    public void Grow(ulong length)
    {
        Writes++;
        if (length > Most)
        {
            throw new BlockException(BlockErrorKind.Io, "disk image: no space") { Status = DiskStatus.NoSpace };
        }

        if (length > (ulong)_bytes.Length)
        {
            Array.Resize(ref _bytes, (int)Math.Max(length, (ulong)_bytes.Length * 2));
        }

        Length = Math.Max(Length, length);
    }

    public void Dispose()
    {
    }
}
