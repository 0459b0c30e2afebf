using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts;
using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>A worker process over its control channel.</summary>
internal sealed class RemoteWorker : IWorker
{
    private const ulong LeastFile = 4096; // a VM without disks in files
    private static readonly TimeSpan s_lastWords = TimeSpan.FromMilliseconds(500);

    private readonly VsockDials _dials;
    private ResidencyReport? _residency;
    private readonly WorkerLink _link;
    private readonly WorkerLauncherOptions _options;
    private readonly Lock _lock = new();
    private readonly RemovalEvents _removals = new();
    private readonly GuestEventBudget _guestBudget = new(), _diskBudget = new();
    private readonly List<Action<WorkerState>> _handlers = [];
    private readonly List<Action<RemovalBody>> _removalHandlers = [];
    private Action<GuestEvent>? _guestEvents;
    private Action<DiskErrorBody>? _diskErrors;
    private readonly TaskCompletionSource<WorkerExit> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Action<RemoteWorker> _gone;
    private readonly Task _finish;
    private WorkerErrors? _errors;
    private WorkerFiles? _files;
    private WorkerExit? _reported;
    private WorkerState _state;
    private string? _killedFor;
    private bool _prepared, _finished;

    /// <param name="socket">The connection; owned from here on.</param>
    /// <param name="process">The process; owned from here on.</param>
    /// <param name="options">Time limits.</param>
    /// <param name="gone">Called once, when the process is gone.</param>
    internal RemoteWorker(PacketSocket socket, ProcessHandle process, WorkerLauncherOptions options, Action<RemoteWorker> gone)
    {
        _options = options;
        _gone = gone;
        _dials = new VsockDials(DialedAsync);
        _link = new WorkerLink(socket, process, options, OnEvent, () => HelloAsync(CancellationToken.None), () => Kill());
        _finish = FinishAsync();
    }

    public string VmId => _files?.VmId ?? "";

    public int ProcessId => _link.Process.ProcessId;

    public Task<WorkerExit> Ended => _ended.Task;

    public ConfinementBody? Confinement { get; private set; }

    public CpuLimits? CpuLimits => Cgroups?.CpuLimits(Group);

    public CpuThrottling? CpuThrottling => Cgroups?.CpuThrottling(Group);

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

    public WorkerState State
    {
        get
        {
            lock (_lock)
            {
                return _state;
            }
        }
    }

    public IDisposable OnStateChanged(Action<WorkerState> handler)
    {
        lock (_lock)
        {
            _handlers.Add(handler);
        }

        return new Subscription(this, handler);
    }

    public string? LimitCpu(CpuLimits limits, bool expected)
    {
        string? problem = Cgroups is null ? "the worker has no control group" : Cgroups.LimitCpu(Group, ProcessId, limits);
        if (expected)
        {
            Confined("cpu-limits", problem);
        }

        return problem;
    }

    public Task StartAsync(CancellationToken cancellation) => CallAsync(ControlKinds.Start, cancellation);

    public Task PauseAsync(CancellationToken cancellation) => CallAsync(ControlKinds.Pause, cancellation);

    public Task ResumeAsync(CancellationToken cancellation) => CallAsync(ControlKinds.Resume, cancellation);

    public Task PressPowerButtonAsync(CancellationToken cancellation) => CallAsync(ControlKinds.PowerButton, cancellation);

    public Task WakeAsync(CancellationToken cancellation) => CallAsync(ControlKinds.Wake, cancellation);

    public async Task StopAsync(CancellationToken cancellation)
    {
        _link.IsNeeded = false;
        Cgroups?.Unthrottle(Group);
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

    public Task<WorkerStats> GetStatsAsync(CancellationToken cancellation) => AskAsync(ControlKinds.Stats, ControlJson.Default.WorkerStats, cancellation);

    public async Task LimitAsync(LimitsBody limits, CancellationToken cancellation)
    {
        ControlClient.Answer answer = await _link.Client.CallAsync(ControlKinds.Limits, ControlCodec.Body(limits, ControlJson.Default.LimitsBody), null, [], cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    public Task<VmMemory> MemoryAsync(MemoryWish? wish, CancellationToken cancellation) =>
        AskAsync(ControlKinds.Memory, ControlJson.Default.VmMemory, cancellation, wish is null ? null : ControlCodec.Body(wish, ControlJson.Default.MemoryWish));

    public Task<WorkerNuma> NumaAsync(CancellationToken cancellation) => AskAsync(ControlKinds.Numa, ControlJson.Default.WorkerNuma, cancellation);

    public async Task RehomeAsync(RehomeBody wish, CancellationToken cancellation)
    {
        ControlClient.Answer answer = await _link.Client.CallAsync(ControlKinds.Rehome, ControlCodec.Body(wish, ControlJson.Default.RehomeBody), null, [], cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    public Task CancelRehomeAsync(CancellationToken cancellation) => CallAsync(ControlKinds.RehomeCancel, cancellation);

    public IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? PresentMemory()
    {
        return LazyInitializer.EnsureInitialized(ref _residency, () => ResidencyReport.Of(ProcessId)).Read();
    }

    public void ServeVsock(string path) => _dials.Serve(path);

    public void OnConnection(Action<bool> handler) => _link.OnChanged(handler);

    public Task<DeviceList> DevicesAsync(CancellationToken cancellation) => AskAsync(ControlKinds.Devices, ControlJson.Default.DeviceList, cancellation);

    public async Task<DeviceInfo> AddDiskAsync(DiskSpec disk, CancellationToken cancellation)
    {
        using WorkerResources resources = WorkerResources.Open(disk, _options.Storage);
        if (Cgroups?.AddMemory(Group, MemoryDisks.BytesOf(disk)) is { } problem)
        {
            throw new WorkerException("disk-in-memory", $"disk {disk.Path} lies in memory, and the worker's memory limit cannot be raised for it: {problem}");
        }

        return await PlugAsync(new PlugBody(VmSpecJson.Write(disk), null), resources, cancellation).ConfigureAwait(false);
    }

    public async Task<DeviceInfo> AddNetAsync(NetSpec net, CancellationToken cancellation)
    {
        using WorkerResources resources = WorkerResources.Open(net);
        return await PlugAsync(new PlugBody(null, VmSpecJson.Write(WorkerResources.WithMtu(net))), resources, cancellation).ConfigureAwait(false);
    }

    public async Task<DeviceRemoval> RemoveDeviceAsync(string device, TimeSpan patience, bool force, CancellationToken cancellation)
    {
        UnplugBody body = new(device, (int)patience.TotalMilliseconds, force);
        ControlClient.Answer answer = await _link.Client.CallAsync(ControlKinds.RemoveDevice, ControlCodec.Body(body, ControlJson.Default.UnplugBody), null, [], cancellation, patience).ConfigureAwait(false);
        RemovalBody removal = Body(answer, ControlJson.Default.RemovalBody);
        return string.Equals(removal.Device, device, StringComparison.Ordinal) ? removal.Outcome
            : throw new WorkerException("bad-answer", $"the worker answered nonsense: asked to remove {device}, it speaks of {removal.Device}");
    }

    public void OnGuestEvent(Action<GuestEvent> handler) => Volatile.Write(ref _guestEvents, handler);

    public void OnDiskError(Action<DiskErrorBody> handler) => Volatile.Write(ref _diskErrors, handler);

    public void OnDeviceRemoved(Action<RemovalBody> handler)
    {
        lock (_lock)
        {
            _removalHandlers.Add(handler);
        }
    }

    private async Task<DeviceInfo> PlugAsync(PlugBody body, WorkerResources resources, CancellationToken cancellation)
    {
        if (LimitFiles(resources, raise: true) is { } problem)
        {
            throw new WorkerException("not-confined", $"the worker's limit on file sizes cannot be raised for this disk: {problem}");
        }

        ControlClient.Answer answer = await _link.Client
            .CallAsync(ControlKinds.AddDevice, ControlCodec.Body(body, ControlJson.Default.PlugBody), resources.Names, [.. resources.Handles], cancellation).ConfigureAwait(false);
        _removals.Expect(1);
        return Body(answer, ControlJson.Default.DeviceInfo);
    }

    public async Task ResizeConsoleAsync(ConsoleSize size, CancellationToken cancellation)
    {
        ControlClient.Answer answer = await _link.Client
            .CallAsync(ControlKinds.ConsoleSize, ControlCodec.Body(size, ControlJson.Default.ConsoleSize), null, [], cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    public async Task<Stream> OpenConsoleAsync(CancellationToken cancellation)
    {
        ControlClient.Answer answer = await _link.Client.CallAsync(ControlKinds.Console, null, null, [], cancellation).ConfigureAwait(false);
        if (answer.Descriptor is not { } descriptor)
        {
            throw new WorkerException("bad-answer", "the worker sent no console");
        }

        try
        {
            return new NetworkStream(new Socket(new SafeSocketHandle(descriptor.Detach(), ownsHandle: true)), ownsSocket: true);
        }
        catch (Exception cause) when (cause is SocketException or IOException or ArgumentException)
        {
            throw new WorkerException("bad-answer", "the worker sent something that is no stream as console", cause);
        }
    }

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
        Cgroups?.Unthrottle(Group); // a thread without quota does not even die
        _link.Process.Kill();
    }

    /// <summary>Its control group; empty when it has none.</summary>
    internal string Group { get; set; } = "";

    /// <summary>Where its group is.</summary>
    internal WorkerCgroups? Cgroups { get; set; }

    /// <summary>Why it has no control group; null when it has.</summary>
    internal string? Ungrouped { get; set; }

    /// <summary>Adds to what confines it that it is in a cgroup (null), or why not.</summary>
    internal void Grouped(string? problem) => Confined("cgroup", problem);

    /// <summary>The VM has huge pages, and they could not be limited.</summary>
    internal void LimitedHugePages(string problem) => Confined("hugetlb", problem);

    private void Confined(string name, string? problem)
    {
        ConfinementBody own = Confinement ?? new ConfinementBody([], []);
        Confinement = problem is null ? own with { Applied = [.. own.Applied, name] } : own with { Missing = [.. own.Missing, $"{name}: {problem}"] };
    }

    // Not among what is missing of its confinement: a vmmd without CAP_SYS_RESOURCE cannot do it for users of their own, and those are worth more.
    private void LimitedFiles(string? problem)
    {
        if (problem is null)
        {
            Confined("file-size", null);
        }
        else
        {
            Told($"no limit on the size of its files: {problem}");
        }
    }

    private void Told(string line)
    {
        if (_options.WorkerSaid is { } say)
        {
            say(ProcessId, VmId, line);
        }
        else
        {
            Console.Error.WriteLine($"worker {ProcessId} {VmId}: {line}");
        }
    }

    /// <summary>Takes what it writes to standard error; owned from here on.</summary>
    internal void Hear(FileDescriptorHandle errors) => _errors = new WorkerErrors(errors, Told);

    /// <summary>
    /// Its files do not grow beyond the largest of its disks, whoever it obeys. Other files it has none that it could write to; memory was made before. A disk
    /// that is larger and comes later raises the limit.
    /// </summary>
    /// <returns>Why not; null when it is so.</returns>
    private string? LimitFiles(WorkerResources resources, bool raise)
    {
        ulong bytes = Math.Max(resources.LargestFile, LeastFile);
        try
        {
            if (!raise || bytes > _link.Process.FileSizeLimit) // one without a limit keeps none
            {
                _link.Process.LimitFileSize(bytes);
            }

            return null;
        }
        catch (KernelException cause)
        {
            return cause.Message;
        }
    }

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
        await _link.Client.CallAsync(ControlKinds.Prepare, null, resources.Names, [.. resources.Handles], cancellation).ConfigureAwait(false);
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

        ControlClient.Answer answer = await _link.Client
            .CallAsync(ControlKinds.Create, ControlCodec.Body(body, ControlJson.Default.CreateBody), resources.Names, [.. resources.Handles], cancellation, longer).ConfigureAwait(false);
        Confinement = Body(answer, ControlJson.Default.ConfinementBody);
        LimitedFiles(LimitFiles(resources, raise: false)); // it has made its memory, which are files to the kernel
        _link.IsNeeded = true;
    }

    /// <summary>For one that was found, not started: asks who it is, in the background. One that does not answer, or not as it should, is ended.</summary>
    internal void Greet(WorkerFiles files, CancellationToken cancellation)
    {
        Assign(files);
        Greeted = GreetAsync(files, cancellation);
    }

    private async Task<bool> GreetAsync(WorkerFiles files, CancellationToken cancellation)
    {
        try
        {
            HelloBody hello = await HelloAsync(cancellation).ConfigureAwait(false);
            if (string.Equals(hello.VmId, files.VmId, StringComparison.Ordinal))
            {
                _link.IsNeeded = true;
                return true;
            }

            Kill($"the worker at {files.Socket} said that it has another VM ({hello.VmId ?? "none"}), and was ended");
        }
        catch (WorkerException e)
        {
            // It does not speak any more: the VM cannot be managed, so it is ended and reported.
            Kill($"its worker did not speak to the new vmmd and was ended: {e.Message}");
        }
        catch (OperationCanceledException)
        {
            // This daemon ends: the next one asks again.
        }

        return false;
    }

    internal async Task<HelloBody> HelloAsync(CancellationToken cancellation)
    {
        HelloRequest request = new(ControlVersion.Current, ControlVersion.Features);
        HelloBody hello = await AskAsync(ControlKinds.Hello, ControlJson.Default.HelloBody, cancellation, ControlCodec.Body(request, ControlJson.Default.HelloRequest)).ConfigureAwait(false);
        SetState(hello.State);
        Confinement = hello.Confinement;
        if (hello.VmId is not null)
        {
            LimitedFiles(_link.Process.FileSizeLimit is null ? "it has had none since its start" : null);
        }

        return hello;
    }

    private async Task CallAsync(string kind, CancellationToken cancellation)
    {
        ControlClient.Answer answer = await _link.Client.CallAsync(kind, null, null, [], cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    private async Task<T> AskAsync<T>(string kind, JsonTypeInfo<T> type, CancellationToken cancellation, JsonElement? question = null) where T : class
    {
        ControlClient.Answer answer = await _link.Client.CallAsync(kind, question, null, [], cancellation).ConfigureAwait(false);
        return Body(answer, type);
    }

    private static T Body<T>(ControlClient.Answer answer, JsonTypeInfo<T> type) where T : class
    {
        answer.Descriptor?.Dispose();
        return ControlCodec.TryBody(answer.Frame, type, out T? body, out string problem)
            ? WorkerCheck.Checked(body)
            : throw new WorkerException("bad-answer", $"the worker answered nonsense: {SafeText.Line(problem, 1024)}");
    }

    private void OnEvent(ControlFrame frame)
    {
        if (string.Equals(frame.Kind, ControlKinds.State, StringComparison.Ordinal) && ControlCodec.TryBody(frame, ControlJson.Default.StateBody, out StateBody? body, out _) && Enum.IsDefined(body.State))
        {
            SetState(body.State);
        }
        else if (string.Equals(frame.Kind, ControlKinds.Ended, StringComparison.Ordinal) && ControlCodec.TryBody(frame, ControlJson.Default.WorkerExit, out WorkerExit? exit, out _))
        {
            lock (_lock)
            {
                _reported ??= WorkerExits.Bounded(exit);
            }

            Cgroups?.Unthrottle(Group);

            SetState(WorkerState.Ended);
        }
        else if (string.Equals(frame.Kind, ControlKinds.VsockDial, StringComparison.Ordinal) && ControlCodec.TryBody(frame, ControlJson.Default.VsockDial, out VsockDial? wish, out _))
        {
            _dials.Begin(wish);
        }
        else if (string.Equals(frame.Kind, ControlKinds.GuestEvent, StringComparison.Ordinal) && ControlCodec.TryBody(frame, ControlJson.Default.GuestEventBody, out GuestEventBody? told, out _)
            && Enum.IsDefined(told.Event) && _guestBudget.Admits())
        {
            Volatile.Read(ref _guestEvents)?.Invoke(told.Event);
        }
        else if (string.Equals(frame.Kind, ControlKinds.DiskError, StringComparison.Ordinal) && ControlCodec.TryBody(frame, ControlJson.Default.DiskErrorBody, out DiskErrorBody? fault, out _)
            && WorkerCheck.IsDiskError(fault) && _diskBudget.Admits())
        {
            Volatile.Read(ref _diskErrors)?.Invoke(fault);
        }
        else if (string.Equals(frame.Kind, ControlKinds.DeviceRemoved, StringComparison.Ordinal) && ControlCodec.TryBody(frame, ControlJson.Default.RemovalBody, out RemovalBody? removal, out _)
            && _removals.Admits(removal))
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
    }

    private async Task DialedAsync(VsockDialed body, UnixStream? stream)
    {
        ControlClient.Answer answer = await _link.Client
            .CallAsync(ControlKinds.VsockDialed, ControlCodec.Body(body, ControlJson.Default.VsockDialed), stream is null ? null : ["stream"], stream is null ? [] : [stream], CancellationToken.None)
            .ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    private void SetState(WorkerState state)
    {
        Action<WorkerState>[] handlers;
        lock (_lock)
        {
            if (_state == state || _state == WorkerState.Ended)
            {
                return;
            }

            _state = state;
            handlers = [.. _handlers];
        }

        foreach (Action<WorkerState> handler in handlers)
        {
            handler(state);
        }
    }

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
        lock (_lock)
        {
            (reported, killedFor) = (_reported, _killedFor);
            _finished = true;
        }

        WorkerExit exit = reported ?? _files?.ReadEnd()
            ?? (killedFor is null ? WorkerExits.Of(how, Cgroups?.WasOutOfMemory(Group) == true) : new WorkerExit(WorkerExitReason.WorkerDied, 1, killedFor));
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

        _gone(this);
        SetState(WorkerState.Ended);
        _ended.TrySetResult(exit);
    }

    /// <summary>Ends it; returns when the process is gone.</summary>
    internal async Task RetireAsync()
    {
        Kill();
        await Ended.ConfigureAwait(false);
        await DisposeAsync().ConfigureAwait(false);
    }

    private sealed class Subscription(RemoteWorker worker, Action<WorkerState> handler) : IDisposable
    {
        public void Dispose()
        {
            lock (worker._lock)
            {
                worker._handlers.Remove(handler);
            }
        }
    }
}
