using System.Diagnostics;
using System.IO.Pipes;
using Vmm.Interop;

namespace Vmm.Io.Tests;

/// <summary>What every loop does, with a ring and without.</summary>
public abstract class IoLoopTests
{
    protected abstract IoLoop Create(int busyPollMicroseconds = 0);

    [Fact]
    public void A_round_has_one_time_and_takes_that_of_a_look_at_the_clock_in_the_round_before()
    {
        using IoLoop loop = Create();
        loop.Poll();
        long time = loop.RoundTime;
        Thread.Sleep(2);
        Assert.Equal(time, loop.RoundTime);
        loop.Looked(time + 1);
        Assert.Equal(time, loop.RoundTime);
        loop.Poll();
        Assert.Equal(time + 1, loop.RoundTime);
        loop.Looked(time + 2);
        loop.Poll();
        loop.Poll();
        Assert.True(loop.RoundTime > time + 1_000_000, "a look two rounds ago is too old");
        long now = loop.RoundTime;
        loop.Looked(now);
        IoTimer timer = loop.AddTimer(() => { });
        timer.Set(3);
        loop.Wait();
        loop.Poll();
        Assert.True(loop.RoundTime > now + 1_000_000, "a look before a sleep is too old");
    }

    [Fact]
    public void Work_posted_by_other_threads_runs_on_the_loop_once_and_in_order()
    {
        using IoLoop loop = Create(50);
        Service service = new();
        List<int> ran = [];
        Thread thread = new(() => loop.Run(service));
        thread.Start();
        for (int i = 0; i < 1000; i++)
        {
            int number = i;
            Assert.True(loop.Post(() =>
            {
                Assert.Equal(thread, Thread.CurrentThread);
                ran.Add(number);
            }));
            if (i % 100 == 0)
            {
                Thread.Sleep(2); // the loop falls asleep now and then
            }
        }

        Assert.True(SpinWait.SpinUntil(() => Volatile.Read(ref service.Rounds) > 0, 20_000));
        loop.Post(loop.Stop);
        Assert.True(thread.Join(20_000));
        Assert.Equal(Enumerable.Range(0, 1000), ran);
        Assert.True(service.WasStopped);
    }

    [Fact]
    public void A_stopped_loop_ends_when_its_service_is_drained_and_sleeps_until_then()
    {
        using IoLoop loop = Create();
        Service service = new() { IsDrained = false };
        Thread thread = new(() => loop.Run(service));
        thread.Start();
        loop.Stop();
        Assert.False(thread.Join(200));
        int sleeps = loop.Sleeps;
        Assert.False(thread.Join(200));
        Assert.Equal(sleeps, loop.Sleeps); // it did not go round
        Assert.True(loop.Post(() => service.IsDrained = true));
        Assert.True(thread.Join(20_000));
    }

    [Fact]
    public void Only_doorbells_that_rang_are_read()
    {
        using IoLoop loop = Create();
        using EventFd first = new(), second = new(), third = new();
        int heard = 0;
        loop.Watch(first, () => heard++);
        loop.Watch(second, () => heard += 100);
        Doorbell gone = loop.Watch(third, () => heard += 10_000);
        for (int round = 1; round <= 3; round++)
        {
            using Timer ring = new(_ => first.Signal(), null, 5, Timeout.Infinite);
            Assert.True(WaitFor(loop, () => heard == round));
            Assert.False(first.TryTake(out _)); // its counter was taken
        }

        loop.Unwatch(gone);
        third.Signal();
        second.Signal();
        Assert.True(WaitFor(loop, () => heard == 103));
        Assert.True(third.TryTake(out _)); // nobody reads what nobody watches
    }

    [Fact]
    public void A_doorbell_that_is_armed_is_heard_while_the_loop_stays_awake()
    {
        using IoLoop loop = Create();
        using EventFd bell = new();
        bool heard = false;
        Doorbell doorbell = loop.Watch(bell, () => heard = true);
        doorbell.Arm();
        loop.Poll();
        bell.Signal();
        Assert.True(SpinWait.SpinUntil(
            () =>
            {
                loop.Poll();
                return heard;
            },
            20_000));
        Assert.Equal(0, loop.Sleeps);
    }

    [Fact]
    public void Timers_fire_once_in_the_order_of_their_deadlines()
    {
        using IoLoop loop = Create();
        List<string> fired = [];
        IoTimer late = loop.AddTimer(() => fired.Add("late")), early = loop.AddTimer(() => fired.Add("early")),
            never = loop.AddTimer(() => fired.Add("never"));
        long begin = Stopwatch.GetTimestamp();
        late.Set(60);
        early.Set(20);
        never.Set(1);
        never.Clear();
        Assert.True(WaitFor(loop, () => fired.Count == 2));
        Assert.Equal(["early", "late"], fired);
        Assert.InRange(Stopwatch.GetElapsedTime(begin).TotalMilliseconds, 59, 20_000);
        Assert.InRange(loop.Sleeps, 2, 50);
    }

    /// <summary>
    /// What a doorbell ends is over, though <see cref="IoLoop.Poll"/> counts nothing: whoever slept then would sleep for ever, as a copy of
    /// a disk did when the flush of another queue served its own.
    /// </summary>
    [Fact]
    public async Task Waiting_for_what_a_doorbell_ends_does_not_sleep_behind_its_end()
    {
        Task waits = Task.Factory.StartNew(
            () =>
            {
                using EventFd bell = new();
                using IoLoop loop = new();
                bool over = false;
                loop.Watch(bell, () => over = true);
                bell.Signal();
                loop.DeliverUntil(() => over);
                loop.DeliverUntil(() => over);
            },
            CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        await waits.WaitAsync(TimeSpan.FromSeconds(60));
    }

    /// <summary>The sleep itself has the time: nothing else wakes the loop, whose ring can do nothing but wait.</summary>
    [Fact]
    public void A_timer_of_microseconds_ends_a_sleep_and_one_that_was_cleared_does_not()
    {
        using IoLoop loop = new(operations: RingOperations.Polls);
        int fired = 0;
        IoTimer timer = loop.AddTimer(() => fired++), cleared = loop.AddTimer(() => fired += 100);
        for (int i = 1; i <= 100; i++)
        {
            long begin = Stopwatch.GetTimestamp();
            timer.SetMicroseconds(200);
            cleared.SetMicroseconds(100);
            cleared.Clear();
            while (loop.Poll() == 0)
            {
                Assert.False(loop.Wait());
            }

            Assert.Equal(i, fired);
            Assert.True(Stopwatch.GetElapsedTime(begin).TotalMicroseconds >= 199);
        }

        Assert.InRange(loop.Sleeps, 1, 1000); // it sleeps, and does not turn in circles
    }

    /// <summary>A tap would be busy for its next user as long as a ring that is gone holds on to it.</summary>
    [Fact]
    public void A_loop_that_is_gone_lets_go_of_what_it_waited_for()
    {
        byte[] one = [1];
        for (int i = 0; i < 200; i++)
        {
            using AnonymousPipeServerStream reader = new(PipeDirection.In);
            using AnonymousPipeClientStream writer = new(PipeDirection.Out, reader.ClientSafePipeHandle);
            using (IoLoop loop = new())
            {
                IoPoll poll = new((_, _) => { });
                loop.Add(poll);
                loop.WatchOnce(poll, reader.SafePipeHandle, PollEvents.Readable);
                loop.Submit();
            }

            reader.Dispose();
            Assert.Throws<IOException>(() => writer.Write(one)); // nobody reads any more
        }
    }

    [Fact]
    public void An_operation_that_ends_without_the_ring_is_delivered_later_and_its_number_is_used_again()
    {
        using IoLoop loop = Create();
        Operation one = new(), two = new();
        loop.Add(one);
        loop.CompleteLater(one, 7);
        Assert.Equal((0, 1), (one.Result, loop.InFlight));
        Assert.Equal(1, loop.Poll());
        Assert.Equal((7, 0), (one.Result, loop.InFlight));
        Assert.Throws<InvalidOperationException>(() => loop.Add(one));
        int number = one.Number;
        loop.Remove(one);
        loop.Add(two);
        Assert.Equal(number, two.Number);
    }

    [Fact]
    public void Posting_to_a_loop_that_is_gone_is_refused()
    {
        IoLoop loop = Create();
        loop.Dispose();
        Assert.False(loop.Post(() => { }));
        loop.Stop();
    }

    [Fact]
    public void A_poll_hears_of_its_events_once_each_time_it_is_begun()
    {
        using IoLoop loop = Create();
        (UnixStream ours, FileDescriptorHandle descriptor) = UnixStream.CreatePair();
        using UnixStream near = ours, far = UnixStream.FromDescriptor(descriptor);
        List<PollEvents> heard = [];
        IoPoll poll = new((_, events) => heard.Add(events));
        loop.Add(poll);
        for (int round = 1; round <= 3; round++)
        {
            loop.WatchOnce(poll, near, PollEvents.Readable);
            loop.Poll();
            Assert.Equal(round - 1, heard.Count);
            far.Send("x"u8);
            Assert.True(WaitFor(loop, () => heard.Count == round));
            near.Receive(new byte[10]);
        }

        far.Dispose();
        loop.WatchOnce(poll, near, PollEvents.Writable);
        Assert.True(WaitFor(loop, () => heard.Count == 4));
        Assert.True(heard[3].HasFlag(PollEvents.HangUp));
        loop.Remove(poll);
    }

    protected static bool WaitFor(IoLoop loop, Func<bool> condition)
    {
        long begin = Stopwatch.GetTimestamp();
        while (!condition() && Stopwatch.GetElapsedTime(begin).TotalSeconds < 20)
        {
            loop.Wait();
            loop.Poll();
        }

        return condition();
    }

    private sealed class Operation : IoOperation
    {
        public int Result { get; private set; }

        protected override void OnCompleted(int result) => Result = result;
    }

    private sealed class Service : IIoService
    {
        public int Rounds;

        public volatile bool WasStopped;

        public bool IsDrained { get; set; } = true;

        public void BeginRound() => Rounds++;

        public bool Serve() => false;

        public bool PrepareSleep() => false;

        public void Stopping() => WasStopped = true;
    }
}
