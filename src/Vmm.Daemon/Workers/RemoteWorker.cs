using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.HostNet;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Spec.Devices;

namespace Vmm.Daemon.Workers;

/// <summary>A worker process over its control channel.</summary>
internal sealed class RemoteWorker : IWorker
{
    private static readonly TimeSpan s_lastWords = TimeSpan.FromMilliseconds(500);
    private readonly VsockDials _dials;
    private readonly StorageDials _storage;
    private readonly UserNetStarts _nets;
    private ResidencyReport? _residency;
    private readonly WorkerEvents _events;
    private readonly WorkerLink _link;
    private readonly WorkerSaves _saves;
    private readonly WorkerLauncherOptions _options;
    private readonly Lock _lock = new();
    private readonly TaskCompletionSource<WorkerExit> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Action<RemoteWorker> _gone;
    private readonly WorkerGreeting _greeting;
    private readonly WorkerPlugs _plugs;
    private readonly WorkerCopies _copies;
    private readonly WorkerSnapshots _snapshots;
    private readonly Task _finish;
    private WorkerErrors? _errors;
    private WorkerFiles? _files;
    private string? _killedFor;
    private WorkerShares? _shares; // under the lock
    private bool _prepared, _finished, _letGo;

    /// <param name="socket">The connection; owned from here on.</param>
    /// <param name="process">The process; owned from here on.</param>
    /// <param name="options">Time limits.</param>
    /// <param name="gone">Called once, when the process is gone.</param>
    internal RemoteWorker(PacketSocket socket, ProcessHandle process, WorkerLauncherOptions options, Action<RemoteWorker> gone)
    {
        (_options, _gone) = (options, gone);
        _dials = new VsockDials((body, stream) => _link!.AnswerDialAsync(
            ControlKinds.VsockDialed, ControlCodec.Body(body, ControlJson.Default.VsockDialed), "stream", stream));
        _nets = new UserNetStarts(net => new PasstProcess(net).Start(), text => options.Disks.NetRemarked?.Invoke(VmId, text));
        _storage = new StorageDials((body, socket) => _link!.AnswerDialAsync(
            ControlKinds.StorageDialed, ControlCodec.Body(body, ControlJson.Default.StorageDialed), "socket", socket),
            options.Disks.Rbd, _nets);
        Bounds = new WorkerBounds(process, ReportLine);
        _events = new WorkerEvents(_dials, _storage, Bounds.Unthrottle);
        _events.OnDeviceRemoved(_ => LeftNets.OnRemoved(_nets, this));
        _link = new WorkerLink(socket, process, options, _events.Handle, () => HelloAsync(CancellationToken.None), () => Kill());
        (_saves, Moves) = (new WorkerSaves(_link, Bounds), new WorkerMoves(_link, () => HelloAsync(CancellationToken.None)));
        Receives = new WorkerReceives(_link, () => HelloAsync(CancellationToken.None));
        (_finish, _greeting) = (FinishAsync(), new WorkerGreeting(_link, _events, Bounds));
        _plugs = new WorkerPlugs(_link, _events, Bounds, _greeting, options.Disks);
        (_copies, _snapshots) = (new WorkerCopies(_link, Bounds, _plugs, options.Disks), new WorkerSnapshots(_link, Bounds, options.Disks));
    }

    public string VmId => _files?.VmId ?? "";

    public string? MoveId => _files?.MoveId;

    public void TakeNames()
    {
        lock (_lock)
        {
            if (!_finished)
            {
                _dials.TakeName();
                Assign(_files!.Rename());
                _letGo = false; // what is the VM's on the host is this one's now
            }
        }
    }

    public void LetGo() => _letGo = true;

    public int ProcessId => _link.Process.ProcessId;

    public Task<WorkerExit> Ended => _ended.Task;

    public ConfinementBody? Confinement => Bounds.Confinement;

    /// <summary>What keeps it in bounds, from outside.</summary>
    internal WorkerBounds Bounds { get; }

    public CpuLimits? CpuLimits => Bounds.CpuLimits;

    public CpuThrottling? CpuThrottling => Bounds.CpuThrottling;

    /// <summary>Completes when the connection is closed, whoever did it.</summary>
    internal Task Closed => _link.Client.Closed;

    /// <summary>The uid it runs as, when it has one of its own.</summary>
    internal uint? UserId { get; private set; }

    public Task<bool> Greeted { get; private set; } = Task.FromResult(true);

    /// <summary>Gives it a user, which its end gives back; false when it has ended already, and nobody would.</summary>
    internal bool TryOwn(uint? user)
    {
        lock (_lock)
        {
            UserId = _finished ? null : user;
            return !_finished;
        }
    }

    public VmState State => _events.State;

    public IDisposable OnStateChanged(Action<VmState> handler) => _events.OnStateChanged(handler);

    public string? LimitCpu(CpuLimits limits, bool expected) => Bounds.LimitCpu(limits, expected);

    public Task StartAsync(CancellationToken cancellation) => CallAsync(ControlKinds.Start, cancellation);

    public Task PauseAsync(CancellationToken cancellation) => CallAsync(ControlKinds.Pause, cancellation);

    public Task ResumeAsync(CancellationToken cancellation) => CallAsync(ControlKinds.Resume, cancellation);

    public Task SaveAsync(
        IReadOnlyList<(string Name, FileDescriptorHandle File)> files, ulong bytes, TimeSpan longest, CancellationToken cancellation) =>
        _saves.SaveAsync(files, bytes, longest, cancellation);

    public IWorkerMoves Moves { get; }

    /// <summary>Gets its VM from another worker.</summary>
    internal WorkerReceives Receives { get; }

    public Task UndoSaveAsync(CancellationToken cancellation) => _saves.UndoAsync(cancellation);

    public Task PressPowerButtonAsync(CancellationToken cancellation) => CallAsync(ControlKinds.PowerButton, cancellation);

    public Task WakeAsync(CancellationToken cancellation) => CallAsync(ControlKinds.Wake, cancellation);

    public async Task StopAsync(CancellationToken cancellation)
    {
        _link.IsNeeded = false;
        Bounds.Unthrottle();
        try
        {
            await CallAsync(ControlKinds.Stop, cancellation).WaitAsync(_options.StopTimeout, cancellation).ConfigureAwait(false);
            await Ended.WaitAsync(_options.StopTimeout, cancellation).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is WorkerException or TimeoutException)
        {
            Kill();
            await Ended.WaitAsync(cancellation).ConfigureAwait(false);
        }
    }

    public Task<WorkerStats> GetStatsAsync(CancellationToken cancellation) =>
        AskAsync(ControlKinds.Stats, ControlJson.Default.WorkerStats, cancellation);

    public Task<UnitList> UnitsAsync(CancellationToken cancellation) =>
        AskAsync(ControlKinds.Units, ControlJson.Default.UnitList, cancellation);

    public Task LimitAsync(LimitsBody limits, CancellationToken cancellation) =>
        CallAsync(ControlKinds.Limits, cancellation, ControlCodec.Body(limits, ControlJson.Default.LimitsBody));

    public Task<VmMemory> MemoryAsync(MemoryWish? wish, CancellationToken cancellation) =>
        AskAsync(ControlKinds.Memory, ControlJson.Default.VmMemory, cancellation, wish is null
            ? null : ControlCodec.Body(wish, ControlJson.Default.MemoryWish));

    public Task<WorkerNuma> NumaAsync(CancellationToken cancellation) =>
        AskAsync(ControlKinds.Numa, ControlJson.Default.WorkerNuma, cancellation);

    public Task RehomeAsync(RehomeBody wish, CancellationToken cancellation) =>
        CallAsync(ControlKinds.Rehome, cancellation, ControlCodec.Body(wish, ControlJson.Default.RehomeBody));

    public Task CancelRehomeAsync(CancellationToken cancellation) => CallAsync(ControlKinds.RehomeCancel, cancellation);

    public IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? PresentMemory() =>
        LazyInitializer.EnsureInitialized(ref _residency, () => ResidencyReport.Of(ProcessId)).Read();

    public void ServeVsock(string path) => _dials.Serve(path);

    public void ServeStorage(IEnumerable<DiskSpec> disks, IEnumerable<DeviceSpec> devices) =>
        _storage.Serve(VmId, disks, _options.Disks.Storage, devices);

    public void ServeNets(IEnumerable<NetSpec> nets) => _nets.Serve(nets);

    public void ServeShares(IReadOnlyList<ShareSpec> shares)
    {
        if (shares.Count > 0)
        {
            ServeShares(shares, _options.Disks.SharesOf(VmId));
        }
    }

    /// <summary>The same with programs that run already, which are the worker's from now on: they end with it.</summary>
    internal void ServeShares(IReadOnlyList<ShareSpec> shares, WorkerShares programs)
    {
        bool finished;
        lock (_lock)
        {
            _shares = programs;
            finished = _finished;
        }

        _storage.Serve(programs, shares);
        if (finished)
        {
            programs.Dispose();
        }
    }

    public void OnConnection(Action<bool> handler) => _link.OnChanged(handler);

    public Task<DeviceList> DevicesAsync(CancellationToken cancellation) =>
        AskAsync(ControlKinds.Devices, ControlJson.Default.DeviceList, cancellation);

    public Task<DeviceInfo> AddDiskAsync(DiskSpec disk, CancellationToken cancellation) =>
        _plugs.AddAsync(VmId, disk, () => _storage.Serve(VmId, [disk]), cancellation);

    public Task<DeviceInfo> AddNetAsync(NetSpec net, CancellationToken cancellation) =>
        _plugs.AddAsync(VmId, net, () => _nets.Serve([net]), cancellation);

    public Task<ulong> GrowDiskAsync(string device, DiskGrowth growth, CancellationToken cancellation) =>
        _plugs.GrowAsync(device, growth, cancellation);

    public Task<ulong> DiskSizeAsync(string device, CancellationToken cancellation) => _plugs.SizeAsync(device, cancellation);

    public Task CopyDiskAsync(string device, DiskSpec disk, DiskCopyWish wish, CancellationToken cancellation) =>
        _copies.BeginAsync(device, disk, wish, () => _storage.Serve(VmId, [disk]), cancellation);

    public Task StreamDiskAsync(string device, DiskStreamWish wish, CancellationToken cancellation) =>
        _copies.StreamAsync(device, wish, cancellation);

    public Task CommitDiskAsync(string device, DiskSpec disk, ulong? bytesPerSecond, CancellationToken cancellation) =>
        _copies.CommitAsync(ProcessId, device, disk, bytesPerSecond, cancellation);

    public Task<DiskCopyInfo> DiskCopyAsync(CancellationToken cancellation) => _copies.InfoAsync(cancellation);

    public Task StepDiskCopyAsync(string device, DiskCopyStep step, CancellationToken cancellation) =>
        _copies.StepAsync(device, step, cancellation);

    public Task SnapshotDisksAsync(IReadOnlyList<(string Device, DiskSpec Overlay)> disks, bool cut, CancellationToken cancellation) =>
        _snapshots.TakeAsync(disks, cut, cancellation);

    public Task LogChangesAsync(string device, FileDescriptorHandle log, CancellationToken cancellation) =>
        _snapshots.LogAsync(device, log, cancellation);

    public Task StopLogAsync(string device, CancellationToken cancellation) => _snapshots.StopLogAsync(device, cancellation);

    public Task<bool> HasSnapshotAsync(IReadOnlyList<SnapshotDisk> disks, CancellationToken cancellation) =>
        _snapshots.HasAsync(disks, cancellation);

    public Task<DeviceRemoval> RemoveDeviceAsync(string device, TimeSpan patience, bool force, CancellationToken cancellation) =>
        _plugs.RemoveAsync(device, patience, force, cancellation);

    public void OnGuestEvent(Action<GuestEvent> handler) => _events.OnGuestEvent(handler);

    public void OnDiskError(Action<DiskErrorBody> handler) => _events.OnDiskError(handler);

    public void OnDiskStall(Action<DiskStallBody> handler) => _events.OnDiskStall(handler);

    public void OnPagingStopped(Action<string?> handler) => _events.OnPagingStopped(handler);

    /// <inheritdoc/>
    public void OnMemoryRestored(Action<MemoryRestoreInfo> handler) => _events.OnMemoryRestored(handler);

    public void OnDeviceRemoved(Action<RemovalBody> handler) => _events.OnDeviceRemoved(handler);

    public Task ResizeConsoleAsync(ConsoleSize size, CancellationToken cancellation) =>
        CallAsync(ControlKinds.ConsoleSize, cancellation, ControlCodec.Body(size, ControlJson.Default.ConsoleSize));

    public Task<Stream> OpenConsoleAsync(CancellationToken cancellation) => _link.OpenStreamAsync(ControlKinds.Console, null, cancellation);

    public Task<Stream> OpenAgentAsync(byte[]? farewell, CancellationToken cancellation) => _link.OpenStreamAsync(
        ControlKinds.AgentStream, ControlCodec.Body(new AgentStreamBody(farewell), ControlJson.Default.AgentStreamBody), cancellation);

    public async ValueTask DisposeAsync()
    {
        await _link.CloseAsync().ConfigureAwait(false);
        await _finish.ConfigureAwait(false);
        _errors?.Dispose();
    }

    internal void Kill(string? why = null)
    {
        lock (_lock)
        {
            _killedFor ??= why;
        }

        _link.IsNeeded = false;
        Bounds.Unthrottle(); // a thread without quota does not even die
        _link.Kill();
    }

    private void ReportLine(string line) => _options.Report(ProcessId, VmId, line);

    /// <summary>Takes what it writes to standard error; owned from here on.</summary>
    internal void Hear(FileDescriptorHandle errors) => _errors = new WorkerErrors(errors, ReportLine);

    /// <summary>From now on it is this VM's worker.</summary>
    internal void Assign(WorkerFiles files)
    {
        _files = files;
        _link.Address = files.Socket;
    }

    /// <summary>Lets it get ready for a VM that is not known yet.</summary>
    internal async Task PrepareAsync(CancellationToken cancellation)
    {
        using WorkerResources resources = WorkerResources.ForPreparation();
        await _link.Client.CallAsync(
            ControlKinds.Prepare, null, resources.Names, [.. resources.Handles], cancellation).ConfigureAwait(false);
        _prepared = true;
    }

    /// <summary>Lets it build its VM; <paramref name="longer"/> is what that may take beyond a usual answer.</summary>
    /// <exception cref="WorkerException">It cannot be built, or KVM is not to be had.</exception>
    internal async Task CreateAsync(CreateBody body, WorkerResources resources, TimeSpan longer, CancellationToken cancellation)
    {
        if (!_prepared)
        {
            resources.AddKvm();
        }

        if (WorkerPlugs.NeedsFeatures(resources) && _link.Client.Peer is null)
        {
            await HelloAsync(cancellation).ConfigureAwait(false); // a new process: whether it takes that is not known yet
        }

        _plugs.RequireKnown(resources);
        ControlClient.Answer answer = await _link.Client
            .CallAsync(
                ControlKinds.Create,
                ControlCodec.Body(body, ControlJson.Default.CreateBody),
                resources.Names,
                [.. resources.Handles],
                cancellation,
                longer).ConfigureAwait(false);
        Bounds.Confinement = WorkerLink.Body(answer, ControlJson.Default.ConfinementBody);
        // It has made its memory, which are files to the kernel
        Bounds.AddFileLimit(Bounds.LimitFiles(resources.LargestFile, raise: false));
        _link.IsNeeded = true;
    }

    /// <summary>
    /// For one that was found, not started: asks who it is, in the background. One that does not answer, or not as it should, is ended.
    /// </summary>
    internal void Greet(WorkerFiles files, CancellationToken cancellation)
    {
        Assign(files);
        Greeted = _greeting.GreetAsync(files, why => Kill(why), cancellation);
    }

    /// <summary>Asks what it speaks and where its VM stands.</summary>
    internal Task<HelloBody> HelloAsync(CancellationToken cancellation) => _greeting.HelloAsync(cancellation);

    private Task CallAsync(string kind, CancellationToken cancellation, JsonElement? body = null) =>
        _link.CallAsync(kind, body, cancellation);

    private Task<T> AskAsync<T>(string kind, JsonTypeInfo<T> type, CancellationToken cancellation, JsonElement? question = null)
        where T : class => _link.AskAsync(kind, type, question, cancellation);

    private async Task FinishAsync()
    {
        if (await _link.Ended.ConfigureAwait(false) is { } how)
        {
            await FinishAsync(how).ConfigureAwait(false);
        }
    }

    private async Task FinishAsync(ProcessEnd how)
    {
        WorkerExit? reported;
        string? killedFor;
        WorkerShares? shares;
        lock (_lock)
        {
            (reported, killedFor, shares) = (_events.Reported, _killedFor, _shares);
            _finished = true;
        }

        WorkerExit exit = reported ?? _files?.ReadEnd()
            ?? (killedFor is null ? WorkerExits.Of(how, Bounds.WasOutOfMemory) : new WorkerExit(ExitReason.WorkerDied, 1, killedFor));
        shares?.Dispose();
        try
        {
            _files?.Delete();
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            // The next start of this VM tries again, and says so.
        }

        if (_errors is { } errors)
        {
            await Task.WhenAny(errors.Finished, Task.Delay(s_lastWords)).ConfigureAwait(false); // they come before the news of its end
        }

        LeftNets.OnEnded(_nets, _letGo ? null : VmId);
        _gone(this);
        _events.SetState(VmState.Stopped);
        _ended.TrySetResult(exit);
    }

    /// <summary>Ends it; returns when the process is gone.</summary>
    internal async Task RetireAsync()
    {
        Kill();
        await Ended.ConfigureAwait(false);
        await DisposeAsync().ConfigureAwait(false);
    }
}
