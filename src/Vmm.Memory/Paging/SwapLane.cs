using System.Buffers.Binary;
using System.Security.Cryptography;
using Vmm.Interop;
using ZstdSharp;

namespace Vmm.Memory.Paging;

/// <summary>
/// What one thread needs to make a cluster of pages, or pages of a cluster: buffers, a compressor, a decompressor and a cipher. The form of
/// a cluster is told in this folder's README. For one thread at a time.
/// </summary>
internal sealed class SwapLane : IDisposable
{
    private const int TagBytes = 16, NonceBytes = 12, LengthBytes = 2, Level = 1;

    /// <summary>A page that does not become as small as this is kept as it is: to unpack it would cost time for nothing.</summary>
    private const int MostPacked = ISwapStore.PageBytes / 16 * 15;

    /// <summary>Blocks of the largest cluster: pages as they are, their lengths and the tag.</summary>
    internal const int MostBlocks = ISwapStore.MostPages + 1;

    private const int BufferBytes = MostBlocks * SwapStore.BlockBytes;

    private readonly NativeArray<byte> _plain = new(BufferBytes);
    private readonly NativeArray<byte> _sealed = new(BufferBytes, SwapStore.BlockBytes);
    private readonly NativeArray<IoVector> _vector = new(1);
    private readonly Compressor _compressor = new(Level);
    private readonly Decompressor _decompressor = new();
    private readonly AesGcm _cipher;

    internal SwapLane(ReadOnlySpan<byte> key) => _cipher = new AesGcm(key, TagBytes);

    /// <summary>The next in the pool.</summary>
    internal SwapLane? Next { get; set; }

    /// <summary>Compresses pages and puts them together, to be sealed.</summary>
    /// <returns>Blocks that they take with their tag.</returns>
    internal int Pack(ReadOnlySpan<byte> pages)
    {
        Span<byte> plain = _plain.Span;
        int count = pages.Length / ISwapStore.PageBytes, end = TagBytes + (count * LengthBytes);
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> page = pages.Slice(i * ISwapStore.PageBytes, ISwapStore.PageBytes);
            if (!_compressor.TryWrap(page, plain.Slice(end, MostPacked), out int length))
            {
                length = ISwapStore.PageBytes;
                page.CopyTo(plain[end..]);
            }

            BinaryPrimitives.WriteUInt16LittleEndian(plain[(TagBytes + (i * LengthBytes))..], (ushort)length);
            end += length;
        }

        int blocks = (end + SwapStore.BlockBytes - 1) / SwapStore.BlockBytes;
        plain[end..(blocks * SwapStore.BlockBytes)].Clear();
        return blocks;
    }

    /// <summary>Encrypts what was packed, for its place and number, and adds the tag that proves them.</summary>
    internal void Seal(in SwapCluster cluster)
    {
        Span<byte> bound = stackalloc byte[16], nonce = stackalloc byte[NonceBytes];
        Bind(cluster, bound, nonce);
        int bytes = cluster.Blocks * SwapStore.BlockBytes;
        Span<byte> all = _sealed.Span[..bytes];
        _cipher.Encrypt(nonce, _plain.Span[TagBytes..bytes], all[TagBytes..], all[..TagBytes], bound);
    }

    /// <summary>Decrypts what was read.</summary>
    /// <returns>False when it is not what was sealed.</returns>
    internal bool TryOpen(in SwapCluster cluster)
    {
        Span<byte> bound = stackalloc byte[16], nonce = stackalloc byte[NonceBytes];
        Bind(cluster, bound, nonce);
        int bytes = cluster.Blocks * SwapStore.BlockBytes;
        ReadOnlySpan<byte> all = _sealed.Span[..bytes];
        try
        {
            _cipher.Decrypt(nonce, all[TagBytes..], all[..TagBytes], _plain.Span[TagBytes..bytes], bound);
            return true;
        }
        catch (AuthenticationTagMismatchException)
        {
            return false;
        }
    }

    /// <summary>Gives a page of the opened cluster.</summary>
    /// <returns>False when it does not become a page: sealed by a writer with an error.</returns>
    internal bool TryUnpack(in SwapCluster cluster, int number, Span<byte> page)
    {
        ReadOnlySpan<byte> plain = _plain.Span[..(cluster.Blocks * SwapStore.BlockBytes)];
        ReadOnlySpan<byte> lengths = plain.Slice(TagBytes, cluster.Pages * LengthBytes);
        int start = TagBytes + lengths.Length;
        for (int i = 0; i < number; i++)
        {
            start += BinaryPrimitives.ReadUInt16LittleEndian(lengths[(i * LengthBytes)..]);
        }

        int length = BinaryPrimitives.ReadUInt16LittleEndian(lengths[(number * LengthBytes)..]);
        if (start + length > plain.Length)
        {
            return false;
        }

        ReadOnlySpan<byte> packed = plain.Slice(start, length);
        if (length == ISwapStore.PageBytes)
        {
            packed.CopyTo(page);
            return true;
        }

        try
        {
            return _decompressor.TryUnwrap(packed, page, out int unpacked) && unpacked == ISwapStore.PageBytes;
        }
        catch (ZstdException)
        {
            return false;
        }
    }

    /// <summary>Writes the sealed blocks.</summary>
    /// <returns>Bytes written, or -errno of what came after the last of them.</returns>
    internal int Write(FileDescriptorHandle file, in SwapCluster cluster)
    {
        int bytes = cluster.Blocks * SwapStore.BlockBytes, done = 0;
        while (done < bytes)
        {
            _vector.Span[0] = new IoVector(_sealed.AddressOf(done), (nuint)(bytes - done));
            int answer = BlockFile.WriteAt(file, _vector.AddressOf(0), 1, SwapStore.OffsetOf(cluster) + (ulong)done);
            if (answer <= 0)
            {
                return answer == 0 ? done : answer;
            }

            done += answer;
            if (done % SwapStore.BlockBytes != 0 && done < bytes)
            {
                return done; // the rest of a block is no transfer for O_DIRECT
            }
        }

        return done;
    }

    /// <summary>Reads blocks, to be opened.</summary>
    /// <returns>Bytes read: fewer than there should be, when the file is shorter.</returns>
    /// <exception cref="KernelException">The file cannot be read.</exception>
    internal int Read(FileDescriptorHandle file, in SwapCluster cluster) =>
        BlockFile.ReadAt(file, _sealed.Span[..(cluster.Blocks * SwapStore.BlockBytes)], SwapStore.OffsetOf(cluster));

    /// <inheritdoc/>
    public void Dispose()
    {
        CryptographicOperations.ZeroMemory(_plain.Span);
        _cipher.Dispose();
        _compressor.Dispose();
        _decompressor.Dispose();
        _plain.Dispose();
        _sealed.Dispose();
        _vector.Dispose();
    }

    // What a cluster is proved to be: this write, at this place. No two writes have one number, so no nonce is used twice.
    private static void Bind(in SwapCluster cluster, Span<byte> bound, Span<byte> nonce)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(bound, cluster.Place);
        BinaryPrimitives.WriteUInt64LittleEndian(bound[8..], cluster.Sequence);
        nonce.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(nonce[4..], cluster.Sequence);
    }
}
