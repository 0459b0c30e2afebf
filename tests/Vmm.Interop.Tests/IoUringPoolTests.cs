namespace Vmm.Interop.Tests;

/// <summary>All in one test: a sealed pool stays so for its process.</summary>
public sealed class IoUringPoolTests
{
    [Fact]
    public void Rings_go_from_thread_to_thread_with_their_polls_called_off_and_a_sealed_pool_makes_none()
    {
        IoUringPool.Check();
        IoUringPool.Return(IoUringPool.Rent());
        Assert.Equal(0, IoUringPool.IdleCount(RingOperations.All)); // not sealed: none is kept
        Assert.Null(IoUringPool.Limit);

        IoUringPool.Add(2, RingOperations.All);
        IoUringPool.Add(1, RingOperations.Polls);
        IoUringPool.Seal();
        Assert.Equal(
            (2, 1, 2),
            (IoUringPool.IdleCount(RingOperations.All), IoUringPool.IdleCount(RingOperations.Polls), IoUringPool.Limit!.Value.Files));
        Assert.Equal(1, IoUringPool.Limit!.Value.Waiting);
        using EventFd bell = new();
        for (int round = 0; round < 20; round++)
        {
            OnThread(() =>
            {
                IoUring ring = IoUringPool.Rent();
                for (ulong tag = 0; tag < 100; tag++) // more than the submission ring holds
                {
                    ring.PollReadable(bell.Handle, tag);
                }

                ring.Submit();
                IoUringPool.Return(ring);
            });
        }

        Assert.Equal(2, IoUringPool.IdleCount(RingOperations.All));
        bell.Signal();
        IoUring one = IoUringPool.Rent(), other = IoUringPool.Rent();
        Span<IoCompletion> completions = stackalloc IoCompletion[4];
        Assert.Equal(0, one.Reap(completions) + other.Reap(completions)); // nothing of those polls is left
        Assert.Equal(Errno.ENOBUFS, Assert.Throws<KernelException>(() => IoUringPool.Rent()).Errno);

        one.SubmitAndWait(1_000_000); // the time goes along with the system call: no operation that restrictions forbid
        Assert.Equal(0, one.Reap(completions));
        one.PollReadable(bell.Handle, 7);
        one.SubmitAndWait();
        Assert.Equal(1, one.Reap(completions));
        Assert.Equal((7ul, (int)PollEvents.Readable), (completions[0].Tag, completions[0].Result));
        IoUringPool.Return(one);
        IoUringPool.Return(other);

        IoUring waiting = IoUringPool.Rent(RingOperations.Polls), stand = IoUringPool.Rent(RingOperations.Polls);
        Assert.Equal((RingOperations.Polls, RingOperations.All), (waiting.Operations, stand.Operations)); // the second stands in
        IoUringPool.Return(waiting);
        IoUringPool.Return(stand);
        Assert.Equal((2, 1), (IoUringPool.IdleCount(RingOperations.All), IoUringPool.IdleCount(RingOperations.Polls)));
    }

    [Fact]
    public void A_ring_that_only_waits_reaches_no_file()
    {
        using IoUring all = new(), waiting = new(RingOperations.Polls);
        using FileDescriptorHandle file = BlockFile.Open(typeof(IoUringPoolTests).Assembly.Location, writable: false, direct: false);
        using NativeArray<byte> bytes = new(16);
        using NativeArray<IoVector> vectors = new(1);
        vectors.Span[0] = new IoVector(bytes.AddressOf(0), 16);
        Assert.Equal(16, Result(all, ring => ring.Read(file, vectors.AddressOf(0), 1, 0, tag: 1)));
        foreach (Action<IoUring> request in (Action<IoUring>[])
        [
            ring => ring.Read(file, vectors.AddressOf(0), 1, 0, tag: 1),
            ring => ring.Write(file, vectors.AddressOf(0), 1, 0, tag: 1),
            ring => ring.DataSync(file, tag: 1),
            ring => ring.Fallocate(file, FallocateModes.KeepSize, 0, 16, tag: 1),
        ])
        {
            Assert.Equal(-13 /* EACCES */, Result(waiting, request));
        }

        using EventFd bell = new();
        bell.Signal();
        Assert.Equal((int)PollEvents.Readable, Result(waiting, ring => ring.PollReadable(bell.Handle, tag: 1)));
    }

    private static int Result(IoUring ring, Action<IoUring> request)
    {
        request(ring);
        ring.SubmitAndWait();
        Span<IoCompletion> completions = stackalloc IoCompletion[2];
        Assert.Equal(1, ring.Reap(completions));
        return completions[0].Result;
    }

    private static void OnThread(Action action)
    {
        Exception? failure = null;
        Thread thread = new(() =>
        {
            try
            {
                action();
            }
            catch (Exception cause)
            {
                failure = cause;
            }
        });
        thread.Start();
        thread.Join();
        Assert.Null(failure);
    }
}
