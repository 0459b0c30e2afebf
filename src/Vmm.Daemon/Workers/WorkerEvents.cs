using System.Diagnostics.CodeAnalysis;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Control;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Workers;

/// <summary>
/// The state of a worker and what it reports unasked, checked and bounded: it may have been taken over. An event of an unknown kind is
/// ignored.
/// </summary>
/// <param name="dials">Connects its guest to ports of the host.</param>
/// <param name="storage">Connects its disks to their servers.</param>
/// <param name="ending">Called when it reports that its VM is over.</param>
internal sealed class WorkerEvents(VsockDials dials, StorageDials storage, Action ending)
{
    private readonly Lock _lock = new();
    private readonly RemovalEvents _removals = new();
    private readonly GuestEventBudget _guestBudget = new(), _diskBudget = new(), _stallBudget = new(), _pagingBudget = new(),
        _restoreBudget = new();
    private readonly List<Action<VmState>> _stateHandlers = [];
    private readonly List<Action<RemovalBody>> _removalHandlers = [];
    private Action<GuestEvent>? _guestHandler;
    private Action<DiskErrorBody>? _diskHandler;
    private Action<DiskStallBody>? _stallHandler;
    private Action<string?>? _pagingHandler;
    private Action<MemoryRestoreInfo>? _restoreHandler;
    private WorkerExit? _reported;
    private VmState _state;

    internal VmState State
    {
        get
        {
            lock (_lock)
            {
                return _state;
            }
        }
    }

    /// <summary>How its VM ended, as it said; null when it said nothing.</summary>
    internal WorkerExit? Reported
    {
        get
        {
            lock (_lock)
            {
                return _reported;
            }
        }
    }

    /// <inheritdoc cref="IWorker.OnStateChanged"/>
    internal IDisposable OnStateChanged(Action<VmState> handler)
    {
        lock (_lock)
        {
            _stateHandlers.Add(handler);
        }

        return new Subscription(this, handler);
    }

    /// <inheritdoc cref="IWorker.OnGuestEvent"/>
    internal void OnGuestEvent(Action<GuestEvent> handler) => Volatile.Write(ref _guestHandler, handler);

    /// <inheritdoc cref="IWorker.OnDiskError"/>
    internal void OnDiskError(Action<DiskErrorBody> handler) => Volatile.Write(ref _diskHandler, handler);

    /// <inheritdoc cref="IWorker.OnDiskStall"/>
    internal void OnDiskStall(Action<DiskStallBody> handler) => Volatile.Write(ref _stallHandler, handler);

    /// <inheritdoc cref="IWorker.OnPagingStopped"/>
    internal void OnPagingStopped(Action<string?> handler) => Volatile.Write(ref _pagingHandler, handler);

    /// <inheritdoc cref="IWorker.OnMemoryRestored"/>
    internal void OnMemoryRestored(Action<MemoryRestoreInfo> handler) => Volatile.Write(ref _restoreHandler, handler);

    /// <inheritdoc cref="IWorker.OnDeviceRemoved"/>
    internal void OnDeviceRemoved(Action<RemovalBody> handler)
    {
        lock (_lock)
        {
            _removalHandlers.Add(handler);
        }
    }

    /// <summary>So many devices more were plugged in, each of which may be reported gone.</summary>
    internal void ExpectRemovals(int devices) => _removals.Expect(devices);

    /// <summary>Takes an event of the control channel.</summary>
    internal void Handle(ControlFrame frame)
    {
        switch (frame.Kind)
        {
            case ControlKinds.State when Read(frame, ControlJson.Default.StateBody, out StateBody? body):
                SetState(body.State);
                break;
            case ControlKinds.Ended when Read(frame, ControlJson.Default.WorkerExit, out WorkerExit? exit):
                lock (_lock)
                {
                    _reported ??= WorkerExits.Bounded(exit);
                }

                ending();
                SetState(VmState.Stopped);
                break;
            case ControlKinds.VsockDial when Read(frame, ControlJson.Default.VsockDial, out VsockDial? dial):
                dials.Begin(dial);
                break;
            case ControlKinds.StorageDial when Read(frame, ControlJson.Default.StorageDial, out StorageDial? server):
                storage.Begin(server);
                break;
            case ControlKinds.GuestEvent when Read(frame, ControlJson.Default.GuestEventBody, out GuestEventBody? guest)
                && Enum.IsDefined(guest.Event) && _guestBudget.Admits():
                Volatile.Read(ref _guestHandler)?.Invoke(guest.Event);
                break;
            case ControlKinds.DiskError when Read(frame, ControlJson.Default.DiskErrorBody, out DiskErrorBody? fault)
                && WorkerCheck.IsDiskError(fault) && _diskBudget.Admits():
                Volatile.Read(ref _diskHandler)?.Invoke(fault);
                break;
            case ControlKinds.DiskStalled when Read(frame, ControlJson.Default.DiskStallBody, out DiskStallBody? stall)
                && WorkerCheck.IsDiskError(new DiskErrorBody(stall.Disk, stall.Fault)) && _stallBudget.Admits():
                Volatile.Read(ref _stallHandler)?.Invoke(stall);
                break;
            case ControlKinds.PagingStopped when Read(frame, ControlJson.Default.PagingStoppedBody, out PagingStoppedBody? paging)
                && _pagingBudget.Admits():
                Volatile.Read(ref _pagingHandler)?.Invoke(WorkerCheck.Reason(paging.Reason));
                break;
            case ControlKinds.MemoryRestored when Read(frame, ControlJson.Default.MemoryRestoreInfo, out MemoryRestoreInfo? restore)
                && WorkerCheck.IsRestore(restore) && _restoreBudget.Admits():
                Volatile.Read(ref _restoreHandler)?.Invoke(restore);
                break;
            case ControlKinds.DeviceRemoved when Read(frame, ControlJson.Default.RemovalBody, out RemovalBody? removal)
                && _removals.Admits(removal):
                ReportRemoval(removal);
                break;
            default:
                break;
        }
    }

    /// <summary>It is in another state. What has ended stays so.</summary>
    internal void SetState(VmState state)
    {
        Action<VmState>[] handlers;
        lock (_lock)
        {
            if (_state == state || _state == VmState.Stopped)
            {
                return;
            }

            _state = state;
            handlers = [.. _stateHandlers];
        }

        foreach (Action<VmState> handler in handlers)
        {
            handler(state);
        }
    }

    private void ReportRemoval(RemovalBody removal)
    {
        Action<RemovalBody>[] handlers;
        lock (_lock)
        {
            handlers = [.. _removalHandlers];
        }

        foreach (Action<RemovalBody> handler in handlers)
        {
            handler(removal);
        }
    }

    private static bool Read<T>(ControlFrame frame, JsonTypeInfo<T> type, [NotNullWhen(true)] out T? body) where T : class =>
        ControlCodec.TryBody(frame, type, out body, out _);

    private sealed class Subscription(WorkerEvents worker, Action<VmState> handler) : IDisposable
    {
        public void Dispose()
        {
            lock (worker._lock)
            {
                worker._stateHandlers.Remove(handler);
            }
        }
    }
}
