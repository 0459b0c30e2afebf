using System.Diagnostics;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Machine.Description;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.State;
using Vmm.Storage;

namespace Vmm.Machine.Moving;

/// <summary>
/// A machine on its way to another process: its memory is sent while it runs, round by round, until somebody stops it; then it comes to
/// rest and the remainder follows, with the state of its units. Up to its end it can be given up, and the machine is as it was. Any thread;
/// disposed before the machine is.
/// </summary>
public sealed class MachineMove : IDisposable
{
    private const int Pause = 20; // milliseconds between two looks at a machine that has converged
    private const int FirstThrottle = 20, ThrottleStep = 10; // percent

    private static readonly TimeSpan s_disks = TimeSpan.FromSeconds(10); // to make stable what was written

    private static readonly Dictionary<MovePhase, MovePhase[]> s_next = new()
    {
        [MovePhase.Copying] = [MovePhase.Converged, MovePhase.Stopping, MovePhase.Failed, MovePhase.GivenUp],
        [MovePhase.Converged] = [MovePhase.Copying, MovePhase.Stopping, MovePhase.Failed, MovePhase.GivenUp],
        [MovePhase.Stopping] = [MovePhase.HandedOver, MovePhase.Failed, MovePhase.GivenUp],
        [MovePhase.HandedOver] = [MovePhase.GivenUp],
        [MovePhase.Failed] = [],
        [MovePhase.GivenUp] = [],
    };

    private readonly VirtualMachine _machine;
    private readonly MoveWish _wish;
    private readonly MoveTracking _tracking;
    private readonly MoveSender _sender;
    private readonly MovePace _pace;
    private readonly VcpuThrottle _throttle;
    private readonly MoveEstimate _estimate = new();
    private readonly CancellationTokenSource _giveUp = new();
    private readonly object _gate = new();
    private readonly Thread _thread;
    private bool _isDisposed;
    private MovePhase _phase;       // under the gate, as what follows
    private int _round = 1;
    private ulong _left;
    private TimeSpan _downtime;
    private string? _problem;
    private TimeSpan? _stopWithin;  // it is to come to rest, and how long that may take
    private MachineRest? _rest;     // of the move's thread until it is handed over
    private DiskRelease? _disks;    // likewise

    private MachineMove(VirtualMachine machine, IReadOnlyList<FileDescriptorHandle> channels, MoveWish wish)
    {
        (_machine, _wish) = (machine, wish);
        IIoThreads threads = machine.Board.Resources.Threads ?? (IIoThreads)PlainIoThreads.Instance;
        List<MoveChannel> own = [];
        MoveTracking? tracking = null;
        MoveSender? sender = null;
        try
        {
            own.AddRange(channels.Select((channel, i) => new MoveChannel(channel, i)));
            _tracking = tracking = new MoveTracking(machine, wish.PassMemory);
            _left = tracking.Left;
            _sender = sender = new MoveSender(own, tracking.Parts, threads);
            _pace = new MovePace(wish.BytesPerSecond);
            _throttle = new VcpuThrottle(machine.Board.Gate, machine.VcpuSet.Kick, threads);
            _thread = new Thread(Run, maxStackSize: 512 * 1024) { Name = "move", IsBackground = true };
            threads.Start(_thread);
        }
        catch
        {
            sender?.Dispose();
            tracking?.Dispose();
            own.ForEach(channel => channel.Dispose());
            throw;
        }
    }

    /// <summary>Where it stands. Any thread, at any time.</summary>
    public MoveProgress Progress
    {
        get
        {
            lock (_gate)
            {
                TimeSpan downtime = _phase is MovePhase.Stopping or MovePhase.HandedOver ? _downtime : _estimate.Downtime(_left);
                return new MoveProgress(
                    _phase, _round, _tracking.Total, _left, _sender.Sent, _estimate.Sent, _estimate.Dirty, _throttle.Percent, downtime,
                    _problem);
            }
        }
    }

    /// <summary>Whether the machine is the move's: nobody else lets it go on, saves it or changes it.</summary>
    public bool IsOngoing => Progress.Phase is not (MovePhase.Failed or MovePhase.GivenUp);

    /// <summary>Begins to send a machine that runs or is paused.</summary>
    /// <param name="machine">The machine.</param>
    /// <param name="channels">Connected streams, owned from here on, also when this throws.</param>
    /// <param name="wish">How.</param>
    /// <exception cref="MoveException">It has something that cannot be moved.</exception>
    /// <exception cref="KernelException">The kernel refused something.</exception>
    public static MachineMove Begin(VirtualMachine machine, IReadOnlyList<FileDescriptorHandle> channels, MoveWish wish)
    {
        try
        {
            MoveCheck.Require(machine);
        }
        catch
        {
            foreach (FileDescriptorHandle channel in channels)
            {
                channel.Dispose();
            }

            throw;
        }

        return new MachineMove(machine, channels, wish);
    }

    /// <summary>
    /// Brings the machine to rest and sends what is left; returns when the receiver has everything and the disks are let go of. When it
    /// throws, the machine is as it was before.
    /// </summary>
    /// <param name="longest">How long it may take.</param>
    /// <exception cref="MoveException">It failed, or was given up meanwhile.</exception>
    public void Stop(TimeSpan longest)
    {
        long begin = Stopwatch.GetTimestamp();
        lock (_gate)
        {
            if (_phase is not (MovePhase.Copying or MovePhase.Converged) || _stopWithin is not null)
            {
                throw new MoveException(_problem ?? $"the move cannot be stopped for: it is {_phase}");
            }

            _stopWithin = longest;
            _sender.CutShort();
            Monitor.PulseAll(_gate);
            while (_phase is MovePhase.Copying or MovePhase.Converged or MovePhase.Stopping)
            {
                TimeSpan left = longest - Stopwatch.GetElapsedTime(begin);
                if (left <= TimeSpan.Zero)
                {
                    _problem ??= $"the VM was not handed over within {longest.TotalSeconds:0.#} s";
                    _giveUp.Cancel();
                    _sender.Cut();
                    left = TimeSpan.FromSeconds(1); // it goes back to where it was, however long that takes
                }

                Monitor.Wait(_gate, left);
            }

            if (_phase != MovePhase.HandedOver)
            {
                throw new MoveException(_problem ?? "the move was given up");
            }
        }
    }

    /// <summary>Ends what goes on as soon as can be; <see cref="GiveUp"/> waits for it. Any thread.</summary>
    public void BeginGiveUp()
    {
        lock (_gate)
        {
            if (_phase is MovePhase.Copying or MovePhase.Converged or MovePhase.Stopping)
            {
                _giveUp.Cancel();
                _sender.Cut();
                Monitor.PulseAll(_gate);
            }
        }
    }

    /// <summary>Gives it up, wherever it stands: the machine is as it was before when this returns, and has its disks again.</summary>
    /// <exception cref="BlockException">A disk is in use elsewhere: the machine stays at rest, and this can be tried again.</exception>
    public void GiveUp()
    {
        BeginGiveUp();
        _thread.Join();
        lock (_gate)
        {
            if (_phase != MovePhase.HandedOver)
            {
                return;
            }

            if (_machine.Board.Firmware?.TryLockAgain() == false)
            {
                throw new BlockException(BlockErrorKind.InUse, "the file of the firmware's variables is in use elsewhere");
            }

            _disks!.TakeBack();
            GoBack();
            Enter(MovePhase.GivenUp);
        }
    }

    /// <summary>Ends it for a machine that is to end, too. One that was handed over stays at rest.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _isDisposed, true))
        {
            return;
        }

        BeginGiveUp();
        _thread.Join();
        _throttle.Dispose();
        _sender.Dispose();
        _giveUp.Dispose();
    }

    private void Run()
    {
        try
        {
            Copy();
            HandOver();
        }
#pragma warning disable CA1031 // Whatever it was: the move failed, and the machine goes on.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            Fail(cause);
        }
    }

    private void Copy()
    {
        UInt128 session = 0;
        HostRandom.Fill(System.Runtime.InteropServices.MemoryMarshal.AsBytes(new Span<UInt128>(ref session)));
        _sender.Greet(session, MachineDescriptionJson.Bytes(_machine.Description), _tracking.Passed);
        SendRound(isFirst: true);
        ulong before = ulong.MaxValue;
        while (!IsToStop(0))
        {
            ulong known = _tracking.Left;
            _tracking.Collect();
            ulong left = _tracking.Left;
            _estimate.AddDirty(left - known);
            bool fits = _estimate.Fits(left, _wish.Downtime);
            lock (_gate)
            {
                _left = left;
                Enter(fits ? MovePhase.Converged : MovePhase.Copying);
            }

            if (!fits && _wish.Throttle && left > before / 2)
            {
                _throttle.Percent = _throttle.Percent == 0 ? FirstThrottle : _throttle.Percent + ThrottleStep;
            }

            before = left;
            if (left > 0)
            {
                SendRound(isFirst: false);
            }

            if (fits && IsToStop(Pause))
            {
                return;
            }
        }
    }

    // Whether somebody wants it to stop, within so many milliseconds.
    private bool IsToStop(int milliseconds)
    {
        lock (_gate)
        {
            if (_stopWithin is null && milliseconds > 0 && !_giveUp.IsCancellationRequested)
            {
                Monitor.Wait(_gate, milliseconds);
            }

            _giveUp.Token.ThrowIfCancellationRequested();
            return _stopWithin is not null;
        }
    }

    private void SendRound(bool isFirst)
    {
        long begin = Stopwatch.GetTimestamp();
        ulong before = _sender.Sent;
        _sender.SendRound(_round, isFirst, _pace);
        _estimate.AddRound(_sender.Sent - before, Stopwatch.GetElapsedTime(begin));
        lock (_gate)
        {
            _round++;
        }
    }

    private void HandOver()
    {
        TimeSpan time;
        lock (_gate)
        {
            Enter(MovePhase.Stopping);
            time = _stopWithin!.Value;
        }

        _pace.End();
        _throttle.Dispose();
        long begin = Stopwatch.GetTimestamp();
        MachineRest rest = _rest = MachineRest.BeginAsync(_machine, time, _giveUp.Token).GetAwaiter().GetResult();
        IReadOnlyList<UnitBlob> units = rest.Units.Save();
        _tracking.Collect(); // last: nothing writes any more
        lock (_gate)
        {
            _left = _tracking.Left;
        }

        SendRound(isFirst: false);
        _sender.Finish(MachineDocument.Write(_machine.Description, units, add: null), isPaused: !rest.Ran);
        _disks = DiskRelease.Run(MoveCheck.Disks(_machine), time < s_disks ? time : s_disks);
        _machine.Board.Firmware?.Unlock();
        lock (_gate)
        {
            (_left, _downtime) = (0, Stopwatch.GetElapsedTime(begin));
            Enter(MovePhase.HandedOver);
        }
    }

    private void Fail(Exception cause)
    {
        bool isGivenUp = _giveUp.IsCancellationRequested;
        _sender.Cut();
        try
        {
            GoBack();
        }
#pragma warning disable CA1031 // As above; what cannot go on any more says so by itself.
        catch (Exception second)
#pragma warning restore CA1031
        {
            cause = new MoveException($"{cause.Message}; and the VM could not go on after that: {second.Message}", cause);
        }

        lock (_gate)
        {
            _problem ??= isGivenUp ? "the move was given up" : cause.Message;
            Enter(isGivenUp ? MovePhase.GivenUp : MovePhase.Failed);
        }
    }

    // The disks are the machine's.
    private void GoBack()
    {
        _throttle.Dispose();
        _tracking.Dispose();
        Interlocked.Exchange(ref _rest, null)?.End();
    }

    // Under the gate.
    private void Enter(MovePhase phase)
    {
        if (phase != _phase && !s_next[_phase].Contains(phase))
        {
            throw new InvalidOperationException($"a move that is {_phase} cannot become {phase}");
        }

        _phase = phase;
        Monitor.PulseAll(_gate);
    }
}
