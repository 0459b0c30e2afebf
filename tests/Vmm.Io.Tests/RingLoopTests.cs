using Vmm.Interop;

namespace Vmm.Io.Tests;

public sealed class RingLoopTests : IoLoopTests
{
    protected override IoLoop Create(int busyPollMicroseconds = 0) => new(busyPollMicroseconds);

    [Fact]
    public void A_poll_that_the_ring_has_cannot_be_called_off()
    {
        using IoLoop loop = Create();
        Assert.Throws<InvalidOperationException>(() => loop.CallOff(new IoPoll((_, _) => { })));
    }

    // What is in the page cache is read inside the call that submits: the buffers tell what was submitted.
    [Fact]
    public void Of_many_transfers_the_first_go_over_before_the_last_are_begun()
    {
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(path, [.. Enumerable.Repeat((byte)1, 4096)]);
            using FileDescriptorHandle file = BlockFile.Open(path, writable: false, direct: false);
            using NativeArray<byte> bytes = new(6, 64);
            using NativeArray<IoVector> vectors = new(6);
            bytes.Span.Clear();
            using IoLoop loop = Create();
            Read[] reads = [.. Enumerable.Range(0, 6).Select(_ => new Read())];
            for (int i = 0; i < reads.Length; i++)
            {
                loop.Add(reads[i]);
                vectors.Span[i] = new IoVector(bytes.AddressOf(i), 1);
                loop.Read(reads[i], file, vectors.AddressOf(i), 1, 0);
            }

            Assert.Equal([1, 1, 1, 1, 0, 0], bytes.Span.ToArray());
            loop.Submit();
            loop.DeliverUntil(() => loop.InFlight == 0);
            Assert.Equal([1, 1, 1, 1, 1, 1], bytes.Span.ToArray());
            Assert.All(reads, read => Assert.Equal(1, read.Result));
        }
        finally
        {
            File.Delete(path);
        }
    }

    private sealed class Read : IoOperation
    {
        public int Result { get; private set; }

        protected override void OnCompleted(int result) => Result = result;
    }
}
