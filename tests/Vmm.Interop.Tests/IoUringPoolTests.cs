namespace Vmm.Interop.Tests;

/// <summary>All in one test: a sealed pool stays so for its process.</summary>
public sealed class IoUringPoolTests
{
    [Fact]
    public void Rings_go_from_thread_to_thread_with_their_polls_called_off_and_a_sealed_pool_makes_none()
    {
        IoUringPool.Check();
        IoUringPool.Return(IoUringPool.Rent());
        Assert.Equal(0, IoUringPool.IdleCount); // not sealed: none is kept
        Assert.Null(IoUringPool.Limit);

        IoUringPool.Add(2);
        IoUringPool.Seal();
        Assert.Equal((2, 2), (IoUringPool.IdleCount, IoUringPool.Limit));
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

        Assert.Equal(2, IoUringPool.IdleCount);
        bell.Signal();
        IoUring one = IoUringPool.Rent(), other = IoUringPool.Rent();
        Span<IoCompletion> completions = stackalloc IoCompletion[4];
        Assert.Equal(0, one.Reap(completions) + other.Reap(completions)); // nothing of those polls is left
        Assert.Equal(Errno.ENOBUFS, Assert.Throws<KernelException>(() => IoUringPool.Rent()).Errno);

        one.PollReadable(bell.Handle, 7);
        one.SubmitAndWait();
        Assert.Equal(1, one.Reap(completions));
        Assert.Equal((7ul, (int)PollEvents.Readable), (completions[0].Tag, completions[0].Result));
        IoUringPool.Return(one);
        IoUringPool.Return(other);
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
