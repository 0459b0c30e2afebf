using Vmm.Interop;

namespace Vmm.Io.Tests;

public sealed class PollLoopTests : IoLoopTests
{
    protected override IoLoop Create(int busyPollMicroseconds = 0) => IoLoop.WithoutRing();

    [Fact]
    public void A_poll_that_was_called_off_is_not_heard_and_its_number_is_free()
    {
        using IoLoop loop = Create();
        (UnixStream ours, FileDescriptorHandle descriptor) = UnixStream.CreatePair();
        using UnixStream near = ours, far = UnixStream.FromDescriptor(descriptor);
        int heard = 0;
        IoPoll poll = new((_, _) => heard++);
        loop.Add(poll);
        loop.WatchOnce(poll, near, PollEvents.Readable);
        loop.CallOff(poll);
        loop.CallOff(poll);
        far.Send("x"u8);
        loop.Poll();
        Assert.Equal(0, heard);
        loop.WatchOnce(poll, near, PollEvents.Readable);
        Assert.True(WaitFor(loop, () => heard == 1));
    }

    [Fact]
    public void Many_polls_wait_side_by_side_and_those_with_events_end()
    {
        using IoLoop loop = Create();
        EventFd[] bells = [.. Enumerable.Range(0, 200).Select(_ => new EventFd())];
        HashSet<int> heard = [];
        for (int i = 0; i < bells.Length; i++)
        {
            int number = i;
            IoPoll poll = new((_, _) => Assert.True(heard.Add(number)));
            loop.Add(poll);
            loop.WatchOnce(poll, bells[i].Handle, PollEvents.Readable);
        }

        for (int i = 0; i < bells.Length; i += 2)
        {
            bells[i].Signal();
        }

        Assert.True(WaitFor(loop, () => heard.Count == 100));
        Assert.All(heard, number => Assert.Equal(0, number % 2));
        bells[1].Signal();
        Assert.True(WaitFor(loop, () => heard.Contains(1)));
        Array.ForEach(bells, bell => bell.Dispose());
    }

    [Fact]
    public void It_has_no_transfers_and_says_so()
    {
        using IoLoop loop = Create();
        using EventFd file = new();
        Idle operation = new();
        loop.Add(operation);
        Assert.Throws<InvalidOperationException>(() => loop.DataSync(operation, file.Handle));
        Assert.Equal(0, loop.InFlight);
    }

    private sealed class Idle : IoOperation
    {
        protected override void OnCompleted(int result)
        {
        }
    }
}
