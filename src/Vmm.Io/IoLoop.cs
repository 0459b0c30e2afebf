using System.Diagnostics;
using System.Runtime.InteropServices;
using Vmm.Interop;

namespace Vmm.Io;

/// <summary>
/// One thread and one io_uring (or poll(2), <see cref="WithoutRing"/>): file transfers, doorbells, timers, work posted by other threads. It
/// is the place where an I/O thread sleeps. While there is work the thread polls, since a wake-up costs the other side an exit; before
/// sleeping it looks a little longer when that helps (<see cref="BusyPoll"/>). All members belong to the thread that runs the loop, but for
/// <see cref="Post"/> and <see cref="Stop"/>. Nothing allocates per operation.
/// </summary>
public sealed class IoLoop : IDisposable
{
    // A disk that ran empty waits for the first request of a batch as long as the whole batch takes to hand over. And the kernel keeps
    // larger ones back to the end of the call, since they might be merged (a plug, from the third of a call on).
    private const int MostUnsubmitted = 4;

    private readonly IoUring? _ring;
    private readonly PollSet? _polls; // in place of a ring
    private readonly PostBox _posted = new();
    private readonly IoCompletion[] _completions = new IoCompletion[64];
    private readonly List<Doorbell> _doorbells = [];
    private readonly TimerList _timers = new();
    private readonly ReadyList _ready = new();
    private readonly OperationTable _operations = new();
    private BusyPoll _poll;
    private int _inFlight, _sleeps, _transfers; // transfers that were begun and not submitted
    private bool _unsubmitted, _disposed;
    private RoundClock _clock;
    private volatile bool _stopping;

    /// <summary>Makes a loop with a ring of <see cref="IoUringPool"/>. Any thread.</summary>
    /// <param name="busyPollMicroseconds">Longest look for work before the thread sleeps; 0 switches looking off.</param>
    /// <param name="operations">What its ring is for.</param>
    /// <exception cref="IoUringUnavailableException">This process has no io_uring.</exception>
    /// <exception cref="KernelException">All rings of a confined process are in use; or out of memory or descriptors.</exception>
    public IoLoop(int busyPollMicroseconds = 0, RingOperations operations = RingOperations.All)
    {
        _poll = new BusyPoll(busyPollMicroseconds);
        try
        {
            _ring = IoUringPool.Rent(operations);
        }
        catch
        {
            _posted.Dispose();
            throw;
        }

        Watch(_posted.Bell, rung: null);
    }

    private IoLoop(PollSet polls)
    {
        _polls = polls;
        Watch(_posted.Bell, rung: null);
    }

    /// <summary>
    /// Makes a loop that waits with poll(2): for who has to answer where io_uring is switched off. It knows doorbells, polls, timers and
    /// posted work, but no transfers of files.
    /// </summary>
    public static IoLoop WithoutRing() => new(new PollSet());

    /// <summary>Operations that the ring or <see cref="CompleteLater"/> has; watches do not count.</summary>
    public int InFlight => _inFlight;

    /// <summary>Counts the calls of <see cref="Poll"/>; goes round. What happens in one of them happens at about one time.</summary>
    public uint Round { get; private set; }

    /// <summary>Ticks of <see cref="Stopwatch"/> of this <see cref="Round"/>, one for all of it.</summary>
    public long RoundTime => _clock.Time(Round);

    /// <summary>Somebody looked at the clock just now.</summary>
    /// <param name="now">Ticks of <see cref="Stopwatch"/>.</param>
    public void Looked(long now) => _clock.Looked(Round, now);

    /// <summary>How often the thread went to sleep. Any thread.</summary>
    public int Sleeps => Volatile.Read(ref _sleeps);

    /// <summary>Gives an operation its number.</summary>
    /// <exception cref="InvalidOperationException">It belongs to another loop.</exception>
    public void Add(IoOperation operation) => _operations.Add(operation, this);

    /// <summary>Takes the number back. Nothing of the operation is in flight.</summary>
    public void Remove(IoOperation operation) => _operations.Remove(operation);

    /// <summary>
    /// Begins a vectored read at a byte offset. The vectors stay until <see cref="Submit"/>, their memory until the completion.
    /// </summary>
    public void Read(IoOperation operation, FileDescriptorHandle file, nint vectors, int count, ulong offset)
    {
        Ring.Read(file, vectors, count, offset, Begin(operation));
        SubmitIfMany();
    }

    /// <summary>
    /// Begins a vectored write at a byte offset. The vectors stay until <see cref="Submit"/>, their memory until the completion.
    /// </summary>
    public void Write(IoOperation operation, FileDescriptorHandle file, nint vectors, int count, ulong offset)
    {
        Ring.Write(file, vectors, count, offset, Begin(operation));
        SubmitIfMany();
    }

    /// <summary>Begins fdatasync(2).</summary>
    public void DataSync(IoOperation operation, FileDescriptorHandle file) => Ring.DataSync(file, Begin(operation));

    /// <summary>Begins fallocate(2).</summary>
    public void Fallocate(IoOperation operation, FileDescriptorHandle file, FallocateModes modes, ulong offset, ulong length) =>
        Ring.Fallocate(file, modes, offset, length, Begin(operation));

    /// <summary>Begins to wait for events of a descriptor, once. The file stays open until they come or the loop ends.</summary>
    /// <param name="poll">A poll of this loop that does not wait already.</param>
    /// <param name="file">A descriptor that poll(2) takes.</param>
    /// <param name="events">What is waited for.</param>
    public void WatchOnce(IoPoll poll, SafeHandle file, PollEvents events)
    {
        Debug.Assert(ReferenceEquals(poll.Loop, this), "a poll of another loop");
        BeginPoll(file, events, (ulong)poll.Number);
    }

    /// <summary>
    /// Ends a wait: the poll is not called any more until it is begun again, and its file may be closed. Nothing happens when it does not
    /// wait. Only for a loop without a ring: a ring keeps the file for itself.
    /// </summary>
    public void CallOff(IoPoll poll) =>
        (_polls ?? throw new InvalidOperationException("A poll that a ring has cannot be called off.")).Remove((ulong)poll.Number);

    /// <summary>The operation ended without the ring: its completion is delivered by the next <see cref="Poll"/>, not now.</summary>
    public void CompleteLater(IoOperation operation, int result)
    {
        _ready.Add(operation, result);
        _inFlight++;
    }

    /// <summary>Hands what was begun to the kernel. Of many transfers the first go over without it.</summary>
    public void Submit()
    {
        if (_unsubmitted)
        {
            _unsubmitted = false;
            _transfers = 0;
            _ring?.Submit();
        }
    }

    /// <summary>Lets a ring of <paramref name="bell"/> end the loop's sleep.</summary>
    /// <param name="bell">The eventfd, which outlives the watch.</param>
    /// <param name="rung">
    /// Called on the loop's thread when it rang, after its counter was taken; null when waking the loop is all that is wanted.
    /// </param>
    public Doorbell Watch(EventFd bell, Action? rung)
    {
        Doorbell doorbell = new(bell, rung);
        Add(doorbell);
        _doorbells.Add(doorbell);
        return doorbell;
    }

    /// <summary>
    /// From now on nobody is woken or called by it. A poll that the ring has is called off with the ring, or ends unheard.
    /// </summary>
    public void Unwatch(Doorbell doorbell)
    {
        _doorbells.Remove(doorbell);
        doorbell.IsAbandoned = true; // a poll that waits keeps the number
        _polls?.Remove((ulong)doorbell.Number);
        if (!doorbell.IsArmed || _polls is not null)
        {
            Remove(doorbell);
        }
    }

    /// <summary>Makes a timer, not set yet.</summary>
    public IoTimer AddTimer(Action fired)
    {
        IoTimer timer = new(fired);
        _timers.Add(timer);
        return timer;
    }

    /// <summary>Takes a timer away.</summary>
    public void RemoveTimer(IoTimer timer) => _timers.Remove(timer);

    /// <summary>
    /// Runs <paramref name="action"/> on the loop's thread. Any thread. False when the loop is gone; what is posted while it stops may
    /// never run.
    /// </summary>
    public bool Post(Action action) => _posted.Post(action);

    /// <summary>Tells the loop to stop: <see cref="Run"/> returns when its service is drained. Any thread.</summary>
    public void Stop()
    {
        _stopping = true;
        _posted.Post(static () => { });
    }

    /// <summary>Serves until <see cref="Stop"/>, then delivers completions until nothing is in flight.</summary>
    public void Run(IIoService service)
    {
        while (!_stopping)
        {
            if (RunOnce(service))
            {
                _poll.Worked();
            }
            else if (service.MayLook && _poll.LookAgain(Look()))
            {
                Thread.SpinWait(4);
            }
            else if (!service.PrepareSleep())
            {
                long before = Stopwatch.GetTimestamp();
                bool untimed = Wait();
                long slept = Stopwatch.GetTimestamp() - before;
                if (untimed)
                {
                    _poll.Slept(slept);
                }

                service.Slept(slept);
            }
        }

        service.Stopping();
        DeliverUntil(() => service.IsDrained);
    }

    /// <summary>One round: completions to their operations, new work from the service. True when there was anything.</summary>
    public bool RunOnce(IIoService service)
    {
        service.BeginRound();
        bool any = Poll() > 0;
        any |= service.Serve();
        Submit();
        return any;
    }

    /// <summary>
    /// Delivers what is complete, runs due timers and posted work, submits what that began. How much there was, doorbells left out. Never
    /// sleeps.
    /// </summary>
    public int Poll()
    {
        Round++;
        int count = DeliverReady();
        int taken;
        do
        {
            taken = _ring is { } ring ? ring.Reap(_completions) : _polls!.Reap(_completions);
            for (int i = 0; i < taken; i++)
            {
                IoOperation operation = _operations[(int)_completions[i].Tag];
                if (!operation.IsWatch)
                {
                    _inFlight--;
                    count++;
                }

                operation.OnCompleted(_completions[i].Result);
            }
        }
        while (taken == _completions.Length);
        if (_timers.Any)
        {
            count += _timers.FireDue();
        }

        if (_posted.Any)
        {
            _posted.Run();
            count++;
        }

        Submit();
        return count;
    }

    /// <summary>
    /// Submits, then delivers until <paramref name="over"/> says so, and sleeps in between. It is asked again behind each delivery, since a
    /// doorbell may have ended it, which <see cref="Poll"/> does not count: who sleeps then sleeps for ever. On the loop's thread.
    /// </summary>
    public void DeliverUntil(Func<bool> over)
    {
        Submit();
        while (!over())
        {
            if (Poll() == 0 && !over())
            {
                Wait();
            }
        }
    }

    /// <summary>
    /// Submits, then sleeps until there is something to <see cref="Poll"/>; may also return for no reason. False when a timer was set or
    /// nothing was waited for: the time it took then says nothing about the others.
    /// </summary>
    public bool Wait()
    {
        long left = _timers.Any ? _timers.NanosecondsLeft() : -1;
        if (left == 0 || _ready.Any || _posted.Any)
        {
            return false;
        }

        for (int i = 0; i < _doorbells.Count; i++)
        {
            _doorbells[i].Arm();
        }

        Volatile.Write(ref _sleeps, _sleeps + 1);
        _clock.Forget();
        _unsubmitted = false;
        _transfers = 0;
        if (_ring is { } ring)
        {
            ring.SubmitAndWait(left);
        }
        else
        {
            _polls!.Wait(left < 0 ? -1 : (left + 999) / 1000);
        }

        return left < 0;
    }

    /// <summary>Waits for operations in flight, then gives the ring back. On the thread that ran the loop.</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        DeliverUntil(() => _inFlight == 0);

        if (_ring is not null)
        {
            IoUringPool.Return(_ring);
        }

        _posted.Dispose();
    }

    private IoUring Ring => _ring ?? throw new InvalidOperationException("A loop without a ring has no transfers.");

    /// <summary>Begins to wait for events of a descriptor, once.</summary>
    internal void BeginPoll(SafeHandle file, PollEvents events, ulong tag)
    {
        if (_ring is { } ring)
        {
            ring.Poll(file, events, tag);
            _unsubmitted = true;
        }
        else
        {
            _polls!.Add(file, events, tag);
        }
    }

    private ulong Begin(IoOperation operation)
    {
        Debug.Assert(ReferenceEquals(operation.Loop, this), "an operation of another loop");
        _unsubmitted = true;
        _inFlight++;
        return (ulong)operation.Number;
    }

    private void SubmitIfMany()
    {
        if (++_transfers >= MostUnsubmitted)
        {
            Submit();
        }
    }

    // The next round's time is known by it: at depth 1 every look of the clock counts.
    private long Look()
    {
        long now = Stopwatch.GetTimestamp();
        Looked(now);
        return now;
    }

    private int DeliverReady()
    {
        IoOperation? next = _ready.TakeAll();
        int count = 0;
        while (next is { } operation)
        {
            next = operation.NextReady;
            _inFlight--;
            count++;
            operation.OnCompleted(operation.ReadyResult);
        }

        return count;
    }
}
