using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Tests;

/// <summary>
/// A kernel that does less than it was asked for: transfers go on where they stopped, and the owner's vectors stay as they are.
/// </summary>
public sealed class ShortTransferTests
{
    private const int Length = 64 << 10;

    [Theory]
    [InlineData(DiskCacheMode.Direct, 512, 0)]
    [InlineData(DiskCacheMode.Direct, 512, 3)]
    [InlineData(DiskCacheMode.Buffered, 1, 0)]
    [InlineData(DiskCacheMode.Buffered, 1, 3)]
    public void Any_split_of_a_transfer_moves_every_byte_once(DiskCacheMode cache, int unit, int shift)
    {
        using TemporaryFile file = new(Length);
        using RawFileBackend disk = RawFileBackend.Open(file.Path, new() { Cache = cache });
        using IoLoop loop = new();
        using ShortKernel kernel = new(disk, loop, unit);
        using NativeArray<byte> memory = new(Length + 4096, 4096);
        using NativeArray<IoVector> vectors = new(4);
        BlockRequest request = new(kernel);
        loop.Add(request);
        int from = 0;
        foreach ((int i, int to) in new[] { (0, 4096), (1, 5120), (2, 33 * 1024), (3, Length) })
        {
            vectors.Span[i] = new IoVector(memory.AddressOf(shift + from), (nuint)(to - from));
            from = to;
        }

        IoVector[] before = vectors.Span.ToArray();
        byte[] model = new byte[Length];
        for (int round = 0; round < 30; round++)
        {
            Random random = new(round);
            random.NextBytes(model);
            model.CopyTo(memory.Span[shift..]);
            Run(BlockKind.Write);
            memory.Span.Clear();
            Run(BlockKind.Read);
            Assert.Equal(model, memory.Span.Slice(shift, Length).ToArray());
            Assert.Equal(before, vectors.Span.ToArray());
            if (round % 3 == 0)
            {
                Run(BlockKind.WriteZeroes);
                Run(BlockKind.Read);
                Assert.Equal(-1, memory.Span.Slice(shift, Length).IndexOfAnyExcept((byte)0));
            }
        }

        Assert.True(kernel.Steps > 100);

        void Run(BlockKind kind)
        {
            request.Prepare(kind, 0, Length);
            request.SetData(vectors.Span);
            kernel.Start(request);
            loop.DeliverUntil(() => request.State != BlockState.Running);

            Assert.Equal(DiskStatus.Ok, kernel.Status);
        }
    }

    // A leaf over the transfers that makes some steps shorter than they were. The bytes behind are wrong then, until they are moved again.
    private sealed class ShortKernel(RawFileBackend disk, IoLoop loop, int unit) : IBlockLeaf, IBlockOwner, IDisposable
    {
        private readonly UringTransfers _transfers = new(disk, loop);
        private readonly Random _random = new(1);

        public int Steps { get; private set; }

        public DiskStatus Status { get; private set; }

        public void Start(BlockRequest request)
        {
            request.Run(this);
            _transfers.Begin(request);
            Assert.Equal(TransferStep.Queued, _transfers.Issue(request));
        }

        public void OnStep(BlockRequest request, int result)
        {
            Steps++;
            int shorter = result > unit && _random.Next(4) != 0 ? Math.Max(unit, _random.Next(result) / unit * unit) : result;
            if (_transfers.Advance(request, shorter, out DiskStatus status) == TransferStep.Done)
            {
                _transfers.Release(ref request.Progress);
                request.Complete(status);
            }
        }

        public void Completed(BlockRequest request, DiskStatus status) => Status = status;

        public void Dispose() => _transfers.Dispose();
    }
}
