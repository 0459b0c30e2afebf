using System.Collections.Concurrent;
using System.IO.Pipelines;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Storage.Changes;

namespace Vmm.Daemon.Tests;

/// <summary>Workers without processes: they outlive a daemon as real ones do, because the tests keep this object.</summary>
internal sealed class FakeWorkers : IWorkerLauncher
{
    internal ConcurrentDictionary<string, FakeWorker> Alive { get; } = new(StringComparer.Ordinal);

    internal Exception? RefuseLaunch { get; set; }

    /// <summary>Its workers are of a release without change logs.</summary>
    internal bool RefusesLogs { get; set; }

    /// <summary>Workers that got a VM, or were to.</summary>
    internal List<FakeIncoming> Received { get; } = [];

    /// <summary>Happens before each call of a worker that gets a VM is carried out, with its name: receive, status, complete.</summary>
    internal Func<string, CancellationToken, Task> Incoming { get; set; } = (_, _) => Task.CompletedTask;

    public async Task<IIncomingWorker> ReceiveAsync(
        string vmId, string? moveId, VmSpec spec, IReadOnlyList<FileDescriptorHandle> channels, CancellationToken cancellation)
    {
        await Incoming("receive", cancellation);
        FakeIncoming incoming = new(this, vmId, moveId, spec, channels);
        Received.Add(incoming);
        return incoming;
    }

    /// <summary>A worker that was moved into.</summary>
    internal FakeWorker Add(string vmId, string? moveId, VmSpec spec, VmState state)
    {
        string name = moveId is null ? vmId : $"{vmId}.{moveId}";
        FakeWorker worker = new(vmId, 2000 + Received.Count, () => Alive.TryRemove(name, out _))
        {
            NoCpuLimits = NoCpuLimits,
            RefusesLogs = () => RefusesLogs,
            Starting = Starting,
            MoveId = moveId,
            Renamed = worker => name = Rename(name, worker),
        };
        worker.Give(spec);
        worker.GoOn(state);
        return Alive.TryAdd(name, worker) ? worker : throw new InvalidOperationException("two workers of one name");
    }

    private string Rename(string from, FakeWorker worker)
    {
        Assert.True(Alive.TryAdd(worker.VmId, worker), "the names of a worker that is there were taken");
        Assert.True(Alive.TryRemove(from, out _));
        return worker.VmId;
    }

    /// <summary>Launches wait for it; null: they do not.</summary>
    internal TaskCompletionSource? LaunchGate { get; set; }

    /// <summary>How far a launch that waits says it is.</summary>
    internal double LaunchProgress { get; set; }

    /// <summary>Happens within the start of workers that are launched from now on; null: nothing.</summary>
    internal Func<FakeWorker, Task>? Starting { get; set; }

    internal int Launches { get; private set; }

    internal TimeSpan LaunchTime { get; set; }

    /// <summary>Makes other workers in place of the fake ones; null where it leaves them.</summary>
    internal Func<string, VmSpec, IWorker?>? Instead { get; set; }

    /// <summary>Why this host cannot limit CPU time; null when it can.</summary>
    internal string? NoCpuLimits { get; set; }

    /// <summary>What workers that are launched from now on say of their vnodes; null is the usual.</summary>
    internal WorkerNuma? Numa { get; set; }

    public async Task<IWorker> LaunchAsync(string vmId, VmSpec spec, Action<double>? progress, CancellationToken cancellation)
    {
        Launches++;
        await Task.Delay(LaunchTime, cancellation);
        progress?.Invoke(LaunchProgress);
        await (LaunchGate?.Task.WaitAsync(cancellation) ?? Task.CompletedTask);
        if (RefuseLaunch is { } refused)
        {
            throw refused;
        }

        if (Instead?.Invoke(vmId, spec) is { } other)
        {
            return other;
        }

        FakeWorker worker = new(vmId, 1000 + Alive.Count, () => Alive.TryRemove(vmId, out _))
        { NoCpuLimits = NoCpuLimits, Starting = Starting, RefusesLogs = () => RefusesLogs };
        worker.Give(spec);
        if ((spec.CpuQuota ?? spec.CpuWeight) is not null)
        {
            worker.LimitCpu(new CpuLimits(spec.CpuQuota, spec.CpuWeight), expected: true);
        }

        worker.Numa = Numa ?? worker.Numa;
        return Alive.TryAdd(vmId, worker) ? worker : throw new InvalidOperationException("two workers for one VM");
    }

    /// <summary>Restores so far, with the names of the files that came.</summary>
    internal List<string[]> Restores { get; } = [];

    public async Task<IWorker> RestoreAsync(
        string vmId, VmSpec spec, IReadOnlyList<(string Name, FileDescriptorHandle File)> files, bool lazily, Action<double>? progress,
        CancellationToken cancellation)
    {
        Restores.Add([.. files.Select(file => file.Name), .. lazily ? new[] { "lazily" } : []]);
        return await LaunchAsync(vmId, spec, progress, cancellation);
    }

    internal int Adoptions { get; private set; }

    public Task<IReadOnlyList<IWorker>> AdoptAsync(CancellationToken cancellation)
    {
        Adoptions++;
        return Task.FromResult<IReadOnlyList<IWorker>>([.. Alive.Values]);
    }
}

internal sealed class FakeWorker(string vmId, int processId, Action gone) : IWorker
{
    private readonly TaskCompletionSource<WorkerExit> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public string VmId => vmId;

    public int ProcessId => processId;

    public VmState State { get; private set; } = VmState.Starting;

    public Task<WorkerExit> Ended => _ended.Task;

    private FakeMoves? _moving;

    internal FakeMoves Moving => _moving ??= new FakeMoves(this);

    IWorkerMoves IWorker.Moves => Moving;

    public string? MoveId { get; internal set; }

    /// <summary>Gets it the names of its VM.</summary>
    internal Action<FakeWorker>? Renamed { get; init; }

    public void TakeNames()
    {
        if (MoveId is not null)
        {
            Renamed!(this);
            MoveId = null;
        }
    }

    /// <summary>Its end leaves alone what is the VM's.</summary>
    internal bool HasLetGo { get; private set; }

    public void LetGo() => HasLetGo = true;

    /// <summary>Its vCPUs stand still.</summary>
    internal void Rest() => State = VmState.Paused;

    /// <summary>It is so.</summary>
    internal void GoOn(VmState state) => State = state;

    internal int PowerButtonPresses { get; private set; }

    /// <summary>What it was greeted with by the daemon that found it.</summary>
    internal TaskCompletionSource<bool>? Silent { get; set; }

    public Task<bool> Greeted => Silent?.Task ?? Task.FromResult(true);

    private Action<bool>? _connection;

    public void OnConnection(Action<bool> handler) => _connection = handler;

    internal void Connection(bool there) => _connection!(there);

    /// <summary>Commands that are sent to it are not answered.</summary>
    internal bool Hangs { get; set; }

    public IDisposable OnStateChanged(Action<VmState> handler) => new MemoryStream();

    private Action<GuestEvent>? _guestEvents;

    public void OnGuestEvent(Action<GuestEvent> handler) => _guestEvents = handler;

    private Action<DiskErrorBody>? _diskErrors;

    public void OnDiskError(Action<DiskErrorBody> handler) => _diskErrors = handler;

    private Action<DiskStallBody>? _stalls;

    public void OnDiskStall(Action<DiskStallBody> handler) => _stalls = handler;

    /// <summary>It pauses its VM for a disk, or lets it go on.</summary>
    internal void Wait(DiskStallBody stall)
    {
        State = stall.Waits ? VmState.Paused : VmState.Running;
        _stalls!(stall);
    }

    internal void Fail(DiskErrorBody fault) => _diskErrors!(fault);

    internal void Tell(GuestEvent told) => _guestEvents!(told);

    /// <summary>As a worker whose guest panicked and is preserved.</summary>
    internal void Preserve()
    {
        State = VmState.Crashed;
        Tell(GuestEvent.Panicked);
    }

    internal void End(WorkerExit exit)
    {
        State = VmState.Stopped;
        gone();
        _ended.TrySetResult(exit);
    }

    /// <summary>Happens within its start, before that is answered.</summary>
    internal Func<FakeWorker, Task>? Starting { get; init; }

    public async Task StartAsync(CancellationToken cancellation)
    {
        await Become(VmState.Running);
        await (Starting?.Invoke(this) ?? Task.CompletedTask);
    }

    public Task PauseAsync(CancellationToken cancellation) => Hangs
        ? Ended.WaitAsync(cancellation).ContinueWith(_ => throw new WorkerException("worker-died", "it is gone"), TaskScheduler.Default)
        : Become(VmState.Paused);

    /// <summary>Happens as the VM goes on, before that is answered.</summary>
    internal Action? Resumed { get; set; }

    public Task ResumeAsync(CancellationToken cancellation)
    {
        State = VmState.Running;
        Resumed?.Invoke();
        return Task.CompletedTask;
    }

    /// <summary>Saves wait for it; null: they do not.</summary>
    internal TaskCompletionSource? SaveGate { get; set; }

    internal WorkerException? RefuseSave { get; set; }

    internal int Undone { get; private set; }

    private VmState _before;

    /// <summary>Writes its id as the document, and nothing as memory.</summary>
    public async Task SaveAsync(
        IReadOnlyList<(string Name, FileDescriptorHandle File)> files, ulong bytes, TimeSpan longest, CancellationToken cancellation)
    {
        _before = State;
        await (SaveGate is { } gate ? Task.WhenAny(gate.Task, Ended).WaitAsync(cancellation) : Task.CompletedTask);
        if (Ended.IsCompleted || RefuseSave is not null)
        {
            throw RefuseSave ?? new WorkerException("worker-died", "it is gone");
        }

        FileDescriptorHandle document = files.Single(file => file.Name == SavedVmFiles.Document).File;
        await File.WriteAllTextAsync($"/proc/self/fd/{document.DangerousGetHandle()}", vmId, cancellation);
        State = VmState.Paused;
    }

    public Task UndoSaveAsync(CancellationToken cancellation)
    {
        Undone++;
        return Become(_before);
    }

    public Task PressPowerButtonAsync(CancellationToken cancellation)
    {
        PowerButtonPresses++;
        return Task.CompletedTask;
    }

    internal int Wakes { get; private set; }

    public Task WakeAsync(CancellationToken cancellation)
    {
        Wakes++;
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellation)
    {
        End(new WorkerExit(ExitReason.Stopped, 0, null));
        return Task.CompletedTask;
    }

    public Task<UnitList> UnitsAsync(CancellationToken cancellation) =>
        Task.FromResult(new UnitList([new UnitInfo("vcpu0", State == VmState.Running ? "running" : "quiescent", "vCPU")]));

    public Task<WorkerStats> GetStatsAsync(CancellationToken cancellation) =>
        Task.FromResult(new WorkerStats(
            12, 34, 56,
            [
                new DiskStats("disk0", 1, 512, 2, 1024, 3, 0, InFlight: 4, Held: 5, new([3, 0], 1), new([1, 2, 0, 4], 19)),
                new DiskStats("disk1", 0, 0, 0, 0, 0, 0),
            ],
            [new NetStats("net0", 6, 7, 8, 9, 10)],
            Shares: [new ShareStats("fs0", 11, 2, Connected: true)],
            Restore: Restore));

    /// <summary>A lazy restore that goes on; null: none.</summary>
    internal MemoryRestoreInfo? Restore { get; set; }

    /// <summary>Its balloon, which is always as large as it was asked to be; null is none.</summary>
    internal BalloonMemoryInfo? Balloon { get; set; }

    private ulong _asked = 64 << 20, _present = 64 << 20;

    internal string? NoCpuLimits { get; init; }

    private CpuLimits _cpu = new();

    public CpuLimits? CpuLimits => NoCpuLimits is null ? _cpu : null;

    public CpuThrottling? CpuThrottling => NoCpuLimits is null ? new CpuThrottling(40, 30, 2500) : null;

    public ConfinementBody? Confinement { get; private set; }

    public string? LimitCpu(CpuLimits limits, bool expected)
    {
        _cpu = NoCpuLimits is null ? limits : _cpu;
        Confinement = expected && NoCpuLimits is not null ? new ConfinementBody([], ["cpu-limits: " + NoCpuLimits]) : Confinement;
        return NoCpuLimits;
    }

    public LimitsBody? Limits { get; private set; }

    public Task LimitAsync(LimitsBody limits, CancellationToken cancellation)
    {
        Limits = limits.Device is "disk0" ? limits : throw new WorkerException("limits-impossible", $"no device {limits.Device}");
        return Task.CompletedTask;
    }

    /// <summary>Its resident limit, in bytes; null: nobody changed it.</summary>
    internal ulong? Resident { get; private set; }

    /// <summary>The limit that it keeps to, and why the host lowered it; null: it has no pager.</summary>
    internal ulong? LimitInForce { get; private set; }

    internal string? LimitReason { get; private set; }

    /// <summary>What of it is resident; null: as much as the limit allows.</summary>
    internal ulong? InMemory { get; set; }

    /// <summary>Questions about its memory wait for it, whatever deadline they have; null: they do not.</summary>
    internal TaskCompletionSource? MemoryGate { get; set; }

    /// <summary>What it says of its pager in place of the truth; null: the truth.</summary>
    internal Func<PagingInfo, PagingInfo>? Lies { get; set; }

    /// <summary>Happens before each wish about its memory is carried out.</summary>
    internal Func<MemoryWish, Task>? Wishing { get; set; }

    private Action<string?>? _paging;

    public void OnPagingStopped(Action<string?> handler) => _paging = handler;

    private Action<MemoryRestoreInfo>? _restored;

    public void OnMemoryRestored(Action<MemoryRestoreInfo> handler) => _restored = handler;

    /// <summary>All its memory is there.</summary>
    internal void EndRestore(MemoryRestoreInfo restore) => _restored!(restore);

    /// <summary>Its pages do not go out any more; null: they do.</summary>
    internal void StopPaging(string? reason) => _paging!(reason);

    /// <summary>A guest that takes what it is given step by step and never gives back the last 32 MiB it grew by.</summary>
    public async Task<VmMemory> MemoryAsync(MemoryWish? wish, CancellationToken cancellation)
    {
        await (MemoryGate?.Task ?? Task.CompletedTask);
        await (wish is not null && Wishing is { } wishing ? wishing(wish) : Task.CompletedTask);
        if (wish?.Bytes > 1UL << 30)
        {
            throw new WorkerException("memory-impossible", "vnode 0 can have 64MiB to 1GiB");
        }

        Balloon = Balloon is { } balloon && wish?.BalloonBytes is { } size
            ? balloon with { TargetBytes = size, ActualBytes = size, HeldBytes = size, Reason = wish.Reason }
            : Balloon;
        Resident = wish?.ResidentBytes ?? Resident;
        (LimitInForce, LimitReason) = wish?.ResidentBytes is { } given ? (given, wish.Reason) : (LimitInForce, LimitReason);
        _asked = wish?.Bytes ?? _asked;
        _present = _asked > _present ? Math.Min(_asked, _present + (64 << 20)) : Math.Max(_asked, Math.Min(_present, 96 << 20));
        PagingInfo? paging = LimitInForce is { } limit
            ? new PagingInfo(limit, 64 << 20, Math.Min(limit, InMemory ?? limit), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                Reason: LimitReason)
            : null;
        return new VmMemory(
            [new VnodeMemoryInfo(0, 64 << 20, 1 << 30, _asked, _present, _present > _asked ? _present - _asked : 0, true)], Balloon,
            paging is not null && Lies is { } lies ? lies(paging) : paging);
    }

    internal WorkerNuma Numa { get; set; } =
        new([new VnodeHomeInfo(0, [], "auto", 4096, [], [new HomedThreadInfo("vcpu0", Environment.ProcessId)])]);

    /// <summary>What the move of a vnode comes to, step by step; the last is what stays.</summary>
    internal Queue<RehomeStatus> Moves { get; } = new();

    internal RehomeBody? Rehomed { get; private set; }

    internal bool RehomeCancelled { get; private set; }

    internal IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? Present { get; set; }

    public Task<WorkerNuma> NumaAsync(CancellationToken cancellation)
    {
        if (Rehomed is { } move && RehomeCancelled)
        {
            Numa = Numa with { Rehome = new RehomeStatus(move.Vnode, move.HostNodes, RehomeState.Cancelled, 0.5, 1 << 20, [], 1000) };
        }
        else if (Rehomed is not null && Moves.TryDequeue(out RehomeStatus? next))
        {
            Numa = Numa with { Rehome = next };
        }

        return Task.FromResult(Numa);
    }

    public Task RehomeAsync(RehomeBody wish, CancellationToken cancellation)
    {
        Rehomed = wish;
        return Task.CompletedTask;
    }

    public Task CancelRehomeAsync(CancellationToken cancellation)
    {
        RehomeCancelled = true;
        return Task.CompletedTask;
    }

    public IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? PresentMemory() => Present;

    private readonly List<DeviceInfo> _devices = [];
    private Action<RemovalBody>? _removed;
    private int _disks, _nets;

    /// <summary>The guest does not let go of anything unless it is forced.</summary>
    internal bool Clings { get; set; }

    internal WorkerException? RefusePlug { get; set; }

    internal void Give(VmSpec spec)
    {
        LimitInForce = spec.Paging is null ? null : spec.ResidentLimit.Bytes;
        _devices.AddRange(
            spec.Disks.Select(d => new DeviceInfo($"disk{_disks++}", "disk", d.Path, _devices.Count + 1, d.ReadOnly, false, false)));
        _devices.AddRange(spec.Nets.Select(n => new DeviceInfo($"net{_nets++}", "net", n.Source, _devices.Count + 1, false, false, false)));
    }

    /// <summary>The guest ejects a device.</summary>
    internal void Eject(string device, DeviceRemoval how = DeviceRemoval.Removed)
    {
        Assert.Equal(1, _devices.RemoveAll(d => d.Name == device));
        _removed!(new RemovalBody(device, how));
    }

    public Task<DeviceList> DevicesAsync(CancellationToken cancellation) => Task.FromResult(new DeviceList([.. _devices]));

    public Task<DeviceInfo> AddDiskAsync(DiskSpec disk, CancellationToken cancellation) =>
        Plug(new DeviceInfo($"disk{_disks++}", "disk", disk.Path, 20, disk.ReadOnly, false, false));

    public Task<DeviceInfo> AddNetAsync(NetSpec net, CancellationToken cancellation) =>
        Plug(new DeviceInfo($"net{_nets++}", "net", net.Source, 21, false, false, false));

    /// <summary>How far the copy of a disk is, as a test wants it.</summary>
    internal DiskCopyInfo CopyInfo { get; set; } = new(DiskCopyState.None);

    /// <summary>Steps of a copy that it was asked for.</summary>
    internal List<DiskCopyStep> CopySteps { get; } = [];

    /// <summary>What a step is refused with.</summary>
    internal Func<DiskCopyStep, WorkerException?> RefuseStep { get; set; } = _ => null;

    /// <summary>The disk as it shall be after the copy.</summary>
    internal DiskSpec? CopyTo { get; private set; }

    /// <summary>How it may copy.</summary>
    internal DiskCopyWish? CopyWish { get; private set; }

    /// <summary>How large its guest sees its disks.</summary>
    internal ulong DiskSize { get; set; } = 1 << 20;

    public Task<ulong> DiskSizeAsync(string device, CancellationToken cancellation) => Task.FromResult(DiskSize);

    public Task CopyDiskAsync(string device, DiskSpec disk, DiskCopyWish wish, CancellationToken cancellation)
    {
        (CopyTo, CopyWish, CopyInfo) = (disk, wish, new(DiskCopyState.Copying, device, 0, 100));
        return Task.CompletedTask;
    }

    /// <summary>How it was asked to stream a disk.</summary>
    internal DiskStreamWish? Stream { get; private set; }

    public Task StreamDiskAsync(string device, DiskStreamWish wish, CancellationToken cancellation)
    {
        (Stream, CopyInfo) = (wish, new(DiskCopyState.Copying, device, 0, 100));
        return Task.CompletedTask;
    }

    /// <summary>What a commit is refused with; null: it begins.</summary>
    internal WorkerException? RefuseCommit { get; set; }

    public Task CommitDiskAsync(string device, DiskSpec disk, ulong? bytesPerSecond, CancellationToken cancellation)
    {
        if (RefuseCommit is { } refused)
        {
            throw refused;
        }

        // Status, steps and what it is in then are the same.
        return CopyDiskAsync(device, disk, new DiskCopyWish(disk.Path, BytesPerSecond: bytesPerSecond), cancellation);
    }

    public Task<DiskCopyInfo> DiskCopyAsync(CancellationToken cancellation) => Ended.IsCompleted
        ? throw new WorkerException("worker-died", "it is gone")
        : Task.FromResult(CopyInfo);

    public Task StepDiskCopyAsync(string device, DiskCopyStep step, CancellationToken cancellation)
    {
        lock (CopySteps)
        {
            CopySteps.Add(step);
        }

        if (RefuseStep(step) is { } refused)
        {
            throw refused;
        }

        CopyInfo = step == DiskCopyStep.Seal ? CopyInfo with { State = DiskCopyState.Sealed } : new(DiskCopyState.None);
        if (step == DiskCopyStep.Finish && Stream is null)
        {
            int at = _devices.FindIndex(d => d.Name == device);
            _devices[at] = _devices[at] with { Source = CopyTo!.Path };
        }

        return Task.CompletedTask;
    }

    /// <summary>What a snapshot is refused with.</summary>
    internal Func<WorkerException?> RefuseSnapshot { get; set; } = () => null;

    /// <summary>A refused snapshot was taken all the same.</summary>
    internal bool TakesRefusedSnapshot { get; set; }

    /// <summary>Files of overlays that it has put on.</summary>
    internal List<string> Overlays { get; } = [];

    /// <summary>Questions for a snapshot that it leaves without an answer.</summary>
    internal int SnapshotSilences { get; set; }

    /// <summary>Logs of its disks, as a worker has them.</summary>
    internal Dictionary<string, ChangeLog> Logs { get; } = [];

    /// <summary>Bytes of a disk that it logs.</summary>
    internal ulong LoggedBytes { get; set; } = 512;

    /// <summary>Whether it is of a release without change logs.</summary>
    internal Func<bool> RefusesLogs { get; init; } = () => false;

    public Task LogChangesAsync(string device, FileDescriptorHandle log, CancellationToken cancellation)
    {
        if (RefusesLogs())
        {
            throw new WorkerException(ControlCodes.WorkerTooOld, "no logs");
        }

        FileDescriptorHandle own = BlockFile.Open($"/proc/self/fd/{log.DangerousGetHandle()}", writable: true, direct: false);
        Logs[device] = ChangeLog.Open(own, LoggedBytes);
        return Task.CompletedTask;
    }

    public Task StopLogAsync(string device, CancellationToken cancellation)
    {
        if (Logs.Remove(device, out ChangeLog? log))
        {
            log.Dispose();
        }

        return Task.CompletedTask;
    }

    public Task SnapshotDisksAsync(IReadOnlyList<(string Device, DiskSpec Overlay)> disks, bool cut, CancellationToken cancellation)
    {
        WorkerException? refused = RefuseSnapshot();
        if (refused is null || TakesRefusedSnapshot)
        {
            foreach ((string device, DiskSpec overlay) in disks)
            {
                int at = _devices.FindIndex(d => d.Name == device);
                _devices[at] = _devices[at] with { Source = overlay.Path };
                Overlays.Add(overlay.Path);
                if (cut && Logs.TryGetValue(device, out ChangeLog? log))
                {
                    log.Cut();
                }
            }
        }

        return refused is null ? Task.CompletedTask : throw refused;
    }

    public Task<bool> HasSnapshotAsync(IReadOnlyList<SnapshotDisk> disks, CancellationToken cancellation) =>
        Ended.IsCompleted || SnapshotSilences-- > 0
            ? throw new WorkerException(Ended.IsCompleted ? "worker-died" : "worker-unresponsive", "no answer")
            : Task.FromResult(disks.All(disk => Overlays.Contains(disk.Path)));

    public Task<ulong> GrowDiskAsync(string device, DiskGrowth growth, CancellationToken cancellation)
    {
        growth.CarryOut();
        return Task.FromResult(growth.Bytes);
    }

    public Task<DeviceRemoval> RemoveDeviceAsync(string device, TimeSpan patience, bool force, CancellationToken cancellation)
    {
        if (Clings && !force)
        {
            return Task.FromResult(DeviceRemoval.Refused);
        }

        DeviceRemoval how = Clings ? DeviceRemoval.Forced : DeviceRemoval.Removed;
        Eject(device, how);
        return Task.FromResult(how);
    }

    public void OnDeviceRemoved(Action<RemovalBody> handler) => _removed = handler;

    private Task<DeviceInfo> Plug(DeviceInfo device)
    {
        if (RefusePlug is { } refused)
        {
            throw refused;
        }

        _devices.Add(device);
        return Task.FromResult(device);
    }

    /// <summary>A console that says everything back in upper case.</summary>
    public Task<Stream> OpenConsoleAsync(CancellationToken cancellation)
    {
        Pipe toDaemon = new(), toGuest = new();
        _ = Ended.ContinueWith(_ => toGuest.Writer.Complete(), TaskScheduler.Default);
        _ = Task.Run(async () =>
        {
            await using Stream input = toGuest.Reader.AsStream(), output = toDaemon.Writer.AsStream();
            byte[] buffer = new byte[256];
            int count;
            while ((count = await input.ReadAsync(buffer, CancellationToken.None)) > 0)
            {
                await output.WriteAsync(
                    buffer.Take(count).Select(b => (byte)char.ToUpperInvariant((char)b)).ToArray(), CancellationToken.None);
            }
        }, CancellationToken.None);
        return Task.FromResult<Stream>(new Duplex(toDaemon.Reader.AsStream(), toGuest.Writer.AsStream()));
    }

    /// <summary>What answers for its guest's standard agent; null: none has the port open.</summary>
    internal Func<byte[]?, Stream>? Agent { get; set; }

    public Task<Stream> OpenAgentAsync(byte[]? farewell, CancellationToken cancellation) => Agent is { } agent
        ? Task.FromResult(agent(farewell))
        : Task.FromException<Stream>(new WorkerException("no-agent", "no agent of the guest has the port open"));

    /// <summary>Sizes its console was told of.</summary>
    internal ConcurrentQueue<ConsoleSize> Sizes { get; } = new();

    public Task ResizeConsoleAsync(ConsoleSize size, CancellationToken cancellation)
    {
        Sizes.Enqueue(size);
        return Task.CompletedTask;
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private Task Become(VmState state)
    {
        State = state;
        return Task.CompletedTask;
    }

    private sealed class Duplex(Stream reader, Stream writer) : Stream
    {
        public override bool CanRead => true;

        public override bool CanWrite => true;

        public override bool CanSeek => false;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
            reader.ReadAsync(buffer, cancellationToken);

        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
            writer.WriteAsync(buffer, cancellationToken);

        public override Task FlushAsync(CancellationToken cancellationToken) => writer.FlushAsync(cancellationToken);

        public override void Flush() => writer.Flush();

        public override int Read(byte[] buffer, int offset, int count) => reader.Read(buffer, offset, count);

        public override void Write(byte[] buffer, int offset, int count) => writer.Write(buffer, offset, count);

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        protected override void Dispose(bool disposing)
        {
            reader.Dispose();
            writer.Dispose();
            base.Dispose(disposing);
        }
    }
}
