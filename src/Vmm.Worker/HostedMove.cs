using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Machine.Moving;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Worker;

/// <summary>
/// The move of the VM of this worker to another one. It begins, stops and is given up in turn; how far it is knows any thread.
/// </summary>
/// <param name="machine">The machine.</param>
/// <param name="isBusy">What else goes on that no move goes along with; null: nothing.</param>
internal sealed class HostedMove(VirtualMachine machine, Func<string?> isBusy) : IDisposable
{
    private MachineMove? _move;

    /// <summary>How far it is.</summary>
    internal MoveInfo Info => Volatile.Read(ref _move)?.Progress is { } now ? Describe(now) : new(MoveStage.None, 0, 0, 0, 0, 0, 0, 0, 0);

    /// <summary>Begins one.</summary>
    /// <exception cref="RequestException">The VM has something that cannot be moved; or one goes on.</exception>
    internal void Begin(MoveBody body, DescriptorResources passed)
    {
        if (body.Channels is < 1 or > MoveBody.MostChannels || body.DowntimeMilliseconds < 0 || body.BytesPerSecond == 0)
        {
            throw new RequestException(ControlCodes.BadFrame, "channels, downtime or rate of the move are out of range");
        }

        if (_move is { IsOngoing: true })
        {
            throw new RequestException(ControlCodes.WrongState, "the VM is being moved already");
        }

        if (isBusy() is { } busy)
        {
            throw new RequestException(ControlCodes.WrongState, $"the VM cannot be moved now: {busy}");
        }

        try
        {
            MachineMove move = MachineMove.Begin(
                machine,
                Channels(body.Channels, passed),
                new MoveWish(
                    TimeSpan.FromMilliseconds(body.DowntimeMilliseconds), body.BytesPerSecond, body.Throttle, body.PassMemory));
            MachineMove? before = _move;
            Volatile.Write(ref _move, move);
            before?.Dispose();
        }
        catch (Exception cause) when (cause is MoveException or KernelException or ArgumentException)
        {
            throw new RequestException(ControlCodes.MoveFailed, cause.Message, cause);
        }
    }

    /// <summary>Brings the VM to rest and hands it over.</summary>
    /// <exception cref="RequestException">It failed: the VM is as it was before.</exception>
    internal MoveInfo Stop(MoveStopBody body)
    {
        MachineMove move = _move ?? throw new RequestException(ControlCodes.WrongState, "the VM is not being moved");
        try
        {
            move.Stop(TimeSpan.FromMilliseconds(Math.Max(body.Milliseconds, 1)));
            return Info;
        }
        catch (MoveException cause)
        {
            throw new RequestException(ControlCodes.MoveFailed, cause.Message, cause);
        }
    }

    /// <summary>What goes on ends soon. Any thread.</summary>
    internal void BeginCancel() => Volatile.Read(ref _move)?.BeginGiveUp();

    /// <summary>Gives it up, wherever it stands; without one nothing happens.</summary>
    /// <exception cref="RequestException">A disk is in use elsewhere: the VM stays paused.</exception>
    internal void Cancel()
    {
        try
        {
            _move?.GiveUp();
        }
        catch (BlockException cause)
        {
            throw new RequestException(ControlCodes.MoveFailed, $"the VM stays paused: {cause.Message}", cause);
        }
    }

    /// <summary>Refuses what does not go along with a move.</summary>
    /// <exception cref="RequestException">It does not.</exception>
    internal void Admit(ControlFrame request)
    {
        bool changes = request.Kind is ControlKinds.Save or ControlKinds.AddDevice or ControlKinds.RemoveDevice or ControlKinds.RefreshDisk
            or ControlKinds.CopyDisk or ControlKinds.StreamDisk or ControlKinds.CommitDisk or ControlKinds.SnapshotDisks
            or ControlKinds.LogDisk or ControlKinds.UnlogDisk or ControlKinds.Rehome
            || (request.Kind is ControlKinds.Memory && request.Body is not null);
        bool drives = request.Kind is ControlKinds.Pause or ControlKinds.Resume or ControlKinds.SaveCancel;
        if ((changes || drives) && _move?.Progress.Phase is { } phase && (phase == MovePhase.HandedOver
            || (changes && phase is MovePhase.Copying or MovePhase.Converged or MovePhase.Stopping)))
        {
            throw new RequestException(ControlCodes.WrongState, phase == MovePhase.HandedOver
                ? "the VM was handed over to another worker: cancel the move first"
                : "the VM is being moved: wait for that, or cancel it");
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _move?.Dispose();

    /// <summary>The channels of a request, by number.</summary>
    /// <exception cref="ArgumentException">One was not passed.</exception>
    internal static IReadOnlyList<FileDescriptorHandle> Channels(int count, DescriptorResources passed)
    {
        List<FileDescriptorHandle> channels = [];
        try
        {
            for (int i = 0; i < count; i++)
            {
                channels.Add(passed.Take(ResourceNames.Channel(i)));
            }

            return channels;
        }
        catch
        {
            channels.ForEach(channel => channel.Dispose());
            throw;
        }
    }

    private static MoveInfo Describe(MoveProgress now) => new(
        now.Phase switch
        {
            MovePhase.Copying => MoveStage.Copying,
            MovePhase.Converged or MovePhase.Stopping => MoveStage.Converged,
            MovePhase.HandedOver => MoveStage.HandedOver,
            MovePhase.Failed => MoveStage.Failed,
            _ => MoveStage.None,
        },
        now.Round,
        now.TotalBytes,
        now.LeftBytes,
        now.SentBytes,
        now.BytesPerSecond,
        now.DirtyBytesPerSecond,
        now.ThrottlePercent,
        now.Downtime.TotalMilliseconds,
        now.Problem);
}
