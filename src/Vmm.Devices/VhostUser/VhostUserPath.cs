using System.Diagnostics;
using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Devices.VhostUser;

/// <summary>Who has the rings of a <see cref="VhostUserPath"/>.</summary>
internal enum RingHolder
{
    /// <summary>The rings are here, and nobody serves them; a back end is there.</summary>
    Taken,

    /// <summary>The back end serves them.</summary>
    Handed,

    /// <summary>A back end is of no use any more, and may be at work still: nobody may touch the rings.</summary>
    Stalled,

    /// <summary>No back end knows of them: the driver is answered here.</summary>
    Orphaned,

    /// <summary>The driver broke one: nothing is served before the reset.</summary>
    Broken,
}

/// <summary>
/// The rings of one activation, served by a back end in another process. It gets the doorbells of the guest and the eventfds that are its
/// interrupts, so nothing here is on the way of a request. What is left is one thread: it hands rings over and takes them back, passes on
/// the interrupts of queues without such an eventfd, and answers the driver itself while no back end is there.
/// </summary>
internal sealed class VhostUserPath : IIoService, IDisposable
{
    private const int CountMilliseconds = 250; // 262144 chains of a ring in a second are counted right

    private static readonly TimeSpan s_endPatience = TimeSpan.FromSeconds(5); // for a back end that was told to end, and does not

    private readonly string _name;
    private readonly VirtioActivation _activation;
    private readonly VhostUserLink _link;
    private readonly VhostUserRings _rings;
    private readonly VhostUserMemory _memory;
    private readonly IoLoop _loop;
    private readonly List<Doorbell> _bells = [];
    private readonly OrphanRings _orphans;
    private readonly HangUpWatch _watch;
    private readonly ConfigWatch _config;
    private readonly Thread _thread;
    private RingHolder _stage;
    private VhostUserFrontEnd? _front;
    private ManualResetEventSlim? _holder; // waits for the rings; of the loop's thread
    private IoTimer? _count;
    private bool _held;
    private readonly bool _counts;
    private volatile bool _ended;

    /// <summary>Makes it.</summary>
    /// <param name="use">Whose it is, and who serves it.</param>
    /// <param name="activation">The rings.</param>
    internal VhostUserPath(VhostUserUse use, VirtioActivation activation)
    {
        (_name, _activation, _link, _counts) = (use.Name, activation, use.Link, use.Counts);
        _rings = new VhostUserRings(activation, _link, use.InOrder, queue => _loop!.Post(() => ChangeCall(queue)));
        _memory = new VhostUserMemory(activation.Memory, use.Memory, PostMemory);
        _loop = new IoLoop(operations: RingOperations.Polls); // last: nothing is left of it when something else is missing
        _orphans = new OrphanRings(activation, use.Orphan, _loop, Wake);
        _watch = new HangUpWatch(_loop, HangUp);
        _config = new ConfigWatch(
            _link, _loop, () => _stage is RingHolder.Handed or RingHolder.Taken ? _front : null, Lose);
        _thread = new Thread(Run, maxStackSize: 256 * 1024) { Name = use.Name + "-vhost", IsBackground = true };
    }

    /// <summary>Starts its thread; the rings are handed over there, since a back end may be slow.</summary>
    internal void Start()
    {
        try
        {
            _rings.Follow();
            _memory.Follow();
            _activation.Threads.Start(_thread);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Takes the rings back, and nothing more is served until <see cref="Resume"/>. False when that takes longer.</summary>
    internal bool TryHold(TimeSpan patience)
    {
        ManualResetEventSlim held = new(); // not disposed: the loop may set it after the patience is over
        if (!_loop.Post(() => Hold(held)))
        {
            return TryJoin(patience);
        }

        for (long begin = Stopwatch.GetTimestamp(); !held.Wait(20);)
        {
            if (_ended)
            {
                return true;
            }

            if (patience != Timeout.InfiniteTimeSpan && Stopwatch.GetElapsedTime(begin) > patience)
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>Ends <see cref="TryHold"/>.</summary>
    internal void Resume() => _loop.Post(Release);

    /// <summary>A back end is there again, or the driver is to be looked at. Any thread.</summary>
    internal void Wake() => _loop.Post(static () => { });

    /// <summary>Tells the thread to take the rings back and to end. Any thread, also again.</summary>
    internal void Stop()
    {
        _memory.Unfollow();
        _rings.Unfollow();
        _loop.Stop();
    }

    /// <summary>Waits for its end; guest memory is not touched any more then. False when it takes longer.</summary>
    internal bool TryJoin(TimeSpan patience)
    {
        if ((_thread.ThreadState & System.Threading.ThreadState.Unstarted) == 0)
        {
            return _thread.Join(patience);
        }

        _loop.Dispose();
        return true;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Stop();
        TryJoin(Timeout.InfiniteTimeSpan);
        _rings.Dispose();
    }

    /// <inheritdoc/>
    bool IIoService.IsDrained => true; // what it waits for is called off with the loop

    /// <inheritdoc/>
    bool IIoService.MayLook => false;

    /// <inheritdoc/>
    void IIoService.BeginRound() { }

    /// <inheritdoc/>
    bool IIoService.Serve()
    {
        if (_held || _stage != RingHolder.Orphaned)
        {
            return false;
        }

        switch (_orphans.Serve(_link.IsConnected))
        {
            case OrphanStep.Malformed:
                Break("malformed ring or chain");
                break;
            case OrphanStep.MayHand:
                Hand(_link.Current);
                break;
            default:
                break;
        }

        return false;
    }

    /// <inheritdoc/>
    bool IIoService.PrepareSleep() => !_held && _stage == RingHolder.Orphaned && _orphans.PrepareSleep();

    /// <inheritdoc/>
    void IIoService.Stopping()
    {
        _bells.ForEach(_loop.Unwatch);
        _orphans.Unwatch();
    }

    private void Run()
    {
        try
        {
            using IoLoop loop = _loop;
            _bells.Add(loop.Watch(_rings.Error, () => Break("the back end found a malformed ring or chain")));
            for (int i = 0; i < _rings.Count; i++)
            {
                int queue = i;
                _bells.Add(loop.Watch(_rings.OwnCall(i), () => _activation.Interrupts.SignalQueue(queue)));
            }

            _activation.Threads.Ready();
            _config.Begin();
            BeginCount(_counts ? loop.AddTimer(() => BeginCount(_count)) : null);
            Hand(_link.Current);
            loop.Run(this);
            End();
        }
#pragma warning disable CA1031 // Whatever fails here fails this device, not the process: the guest sees a device that needs a reset.
        catch (Exception error)
#pragma warning restore CA1031
        {
            _activation.Interrupts.SetNeedsReset($"{_name}: thread of its rings failed: {error.Message}");
        }
        finally
        {
            _ended = true;
        }
    }

    // Everything below is of the loop's thread.

    private void BeginCount(IoTimer? timer)
    {
        _rings.CountCompleted();
        (_count = timer)?.Set(CountMilliseconds);
    }

    /// <summary>Gives the rings, which are here, to a back end; without one they are served here.</summary>
    private void Hand(VhostUserFrontEnd? front)
    {
        if (front is null)
        {
            Adopt();
            return;
        }

        _front = front;
        _orphans.End();
        try
        {
            _rings.Hand(front, _memory.Present());
            _stage = RingHolder.Handed;
            _watch.Listen(_front!.Handle);
        }
        catch (VhostUserException cause)
        {
            Lose(cause.Message);
        }
    }

    private void TakeBack()
    {
        try
        {
            _rings.TakeBack(_front!);
            _stage = RingHolder.Taken;
        }
        catch (VhostUserException cause)
        {
            Lose(cause.Message);
        }
    }

    // The rings that it has are ours when its process is gone: until then it may write to them.
    private void Lose(string why)
    {
        _link.Lose(_front!, why);
        if (_rings.AnyHanded)
        {
            _stage = RingHolder.Stalled;
            HangUp();
            return;
        }

        DropFront();
        Adopt();
    }

    private void HangUp()
    {
        if (_front is not { } front)
        {
            return;
        }

        switch (front.Look())
        {
            case BackEndSign.Ended:
                _link.Lose(front, "it ended");
                DropFront();
                Ended();
                return;
            case BackEndSign.Spoke when _stage != RingHolder.Stalled:
                Lose("it sends what nobody asked for");
                return;
            default:
                _watch.Listen(_front!.Handle);
                return;
        }
    }

    private void DropFront()
    {
        _front!.Dispose();
        _front = null;
        _watch.Forget();
    }

    private void Ended()
    {
        if (_stage == RingHolder.Broken)
        {
            return;
        }

        if (!_rings.TryRecover(out string problem))
        {
            Break(problem);
            return;
        }

        Adopt();
        TellHeld();
    }

    private void Adopt()
    {
        _stage = RingHolder.Orphaned;
        _orphans.Begin();
    }

    private void Hold(ManualResetEventSlim held)
    {
        if (!_held)
        {
            _held = true;
            if (_stage == RingHolder.Handed)
            {
                TakeBack();
            }

            _orphans.GiveBack();
        }

        _holder = held;
        TellHeld();
    }

    private void TellHeld()
    {
        if (_held && _stage != RingHolder.Stalled)
        {
            _holder?.Set();
            _holder = null;
        }
    }

    private void Release()
    {
        _held = false;
        if (_stage == RingHolder.Taken)
        {
            Hand(_front);
        }
    }

    private void ChangeCall(int queue)
    {
        if (_stage != RingHolder.Handed)
        {
            return;
        }

        try
        {
            _front!.SetCall(queue, _rings.Call(queue));
            _activation.Interrupts.SignalQueue(queue); // one that was rung on the old way meanwhile may be lost
        }
        catch (VhostUserException cause)
        {
            Lose(cause.Message);
        }
    }

    private bool PostMemory(Action done) => _loop.Post(() =>
    {
        if (_stage == RingHolder.Handed)
        {
            TakeBack();
            if (_stage == RingHolder.Taken)
            {
                Hand(_front);
            }
        }

        done();
    });

    private void Break(string reason)
    {
        if (_stage == RingHolder.Handed)
        {
            TakeBack();
        }

        _stage = RingHolder.Broken;
        _activation.Interrupts.SetNeedsReset($"{_name}: {reason}");
        TellHeld();
    }

    // After the loop: the driver reset the device, or it goes.
    private void End()
    {
        if (_stage == RingHolder.Handed)
        {
            TakeBack();
        }

        _orphans.End();
        if (_front is null || ReferenceEquals(_front, _link.Current))
        {
            return; // it stays for the next activation
        }

        _front.WaitEnd(s_endPatience);
        DropFront();
    }
}
