namespace Vmm.Interop.Tests;

public sealed class FileTests : IDisposable
{
    private readonly string _path = Path.GetTempFileName();

    public void Dispose() => File.Delete(_path);

    [Fact]
    public void A_file_is_examined_locked_written_and_read()
    {
        File.WriteAllBytes(_path, new byte[10000]);
        using FileDescriptorHandle one = BlockFile.Open(_path, writable: true, direct: false),
            other = BlockFile.Open(_path, writable: false, direct: false);
        BlockFileInfo info = BlockFile.Inspect(one);
        Assert.Equal((10000ul, BlockFileKind.RegularFile, 512u), (info.Size, info.Kind, info.LogicalBlock));
        Assert.True(BlockFile.TryLock(one, exclusive: true));
        Assert.False(BlockFile.TryLock(other, exclusive: false));

        using NativeArray<byte> bytes = new(8);
        using NativeArray<IoVector> vectors = new(2);
        "abcdefgh"u8.CopyTo(bytes.Span);
        vectors.Span[0] = new IoVector(bytes.AddressOf(0), 3);
        vectors.Span[1] = new IoVector(bytes.AddressOf(3), 5);
        Assert.Equal(8, BlockFile.WriteAt(one, vectors.AddressOf(0), 2, 9996)); // a file grows
        Assert.Equal(3, BlockFile.WriteAt(one, vectors.AddressOf(0), 1, 5_000_000_000));
        Assert.Equal(-Errno.EBADF, BlockFile.WriteAt(other, vectors.AddressOf(0), 1, 0));
        byte[] back = new byte[16];
        Assert.Equal(16, BlockFile.ReadAt(one, back, 9990));
        Assert.True(back.AsSpan().SequenceEqual("\0\0\0\0\0\0abcdefgh\0\0"u8));
        Assert.Equal(2, BlockFile.ReadAt(one, back, 5_000_000_001));
        bytes.Span.Clear();
        Assert.Equal(8, BlockFile.ReadAt(one, vectors.AddressOf(0), 2, 9996, nowait: false));
        Assert.True(bytes.Span.SequenceEqual("abcdefgh"u8));
        Assert.Equal(3, BlockFile.ReadAt(one, vectors.AddressOf(0), 1, 5_000_000_000, nowait: false));
        if (BlockFile.TakesNowait(one))
        {
            Assert.Contains(BlockFile.ReadAt(one, vectors.AddressOf(0), 2, 9996, nowait: true), new[] { 8, -Errno.EAGAIN });
        }
    }
}
