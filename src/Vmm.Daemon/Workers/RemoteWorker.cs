using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Mono.Unix.Native;
using Vmm.Contracts;
using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Machine.Spec;
using Vmm.Memory;

namespace Vmm.Daemon.Workers;

/// <summary>A worker process over its control channel.</summary>
internal sealed class RemoteWorker : IWorker
{
    private const int Sigsys = 31, Sigkill = 9, MostDials = 8;
    private const ulong LeastFile = 4096; // a VM without disks in files

    private readonly ControlClient _client;
    private readonly ProcessHandle _process;
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
    private readonly Task _watch;
    private WorkerErrors? _errors;
    private VsockBroker? _vsock;
    private int _dials;
    private WorkerFiles? _files;
    private WorkerExit? _reported;
    private WorkerState _state;
    private bool _disposed, _prepared;

    /// <param name="socket">The connection; owned from here on.</param>
    /// <param name="process">The process; owned from here on.</param>
    /// <param name="options">Time limits.</param>
    /// <param name="gone">Called once, when the process is gone.</param>
    internal RemoteWorker(PacketSocket socket, ProcessHandle process, WorkerLauncherOptions options, Action<RemoteWorker> gone)
    {
        _process = process;
        _options = options;
        _gone = gone;
        _client = new ControlClient(socket, options.AnswerTimeout, OnEvent);
        _watch = Task.Run(WatchAsync);
    }

    public string VmId => _files?.VmId ?? "";

    public int ProcessId => _process.ProcessId;

    public Task<WorkerExit> Ended => _ended.Task;

    public ConfinementBody? Confinement { get; private set; }

    public CpuLimits? CpuLimits => Cgroups?.CpuLimits(Group);

    public CpuThrottling? CpuThrottling => Cgroups?.CpuThrottling(Group);

    /// <summary>Completes when the connection is closed, whoever did it.</summary>
    internal Task Closed => _client.Closed;

    /// <summary>The uid it runs as, when it has one of its own.</summary>
    internal uint? UserId { get; set; }

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
        ControlClient.Answer answer = await _client.CallAsync(ControlKinds.Limits, ControlCodec.Body(limits, ControlJson.Default.LimitsBody), null, [], cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    public Task<VmMemory> MemoryAsync(MemoryWish? wish, CancellationToken cancellation) =>
        AskAsync(ControlKinds.Memory, ControlJson.Default.VmMemory, cancellation, wish is null ? null : ControlCodec.Body(wish, ControlJson.Default.MemoryWish));

    public Task<WorkerNuma> NumaAsync(CancellationToken cancellation) => AskAsync(ControlKinds.Numa, ControlJson.Default.WorkerNuma, cancellation);

    public async Task RehomeAsync(RehomeBody wish, CancellationToken cancellation)
    {
        ControlClient.Answer answer = await _client.CallAsync(ControlKinds.Rehome, ControlCodec.Body(wish, ControlJson.Default.RehomeBody), null, [], cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    public Task CancelRehomeAsync(CancellationToken cancellation) => CallAsync(ControlKinds.RehomeCancel, cancellation);

    public IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? PresentMemory()
    {
        try
        {
            return NumaMaps.Parse(File.ReadAllText($"/proc/{ProcessId}/numa_maps"));
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return null; // a kernel without NUMA, a daemon without CAP_SYS_PTRACE, or a worker that just ended
        }
    }

    public void ServeVsock(string path) => Volatile.Write(ref _vsock, new VsockBroker(path));

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
        ControlClient.Answer answer = await _client.CallAsync(ControlKinds.RemoveDevice, ControlCodec.Body(body, ControlJson.Default.UnplugBody), null, [], cancellation, patience).ConfigureAwait(false);
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

        ControlClient.Answer answer = await _client
            .CallAsync(ControlKinds.AddDevice, ControlCodec.Body(body, ControlJson.Default.PlugBody), resources.Names, [.. resources.Handles], cancellation).ConfigureAwait(false);
        _removals.Expect(1);
        return Body(answer, ControlJson.Default.DeviceInfo);
    }

    public async Task ResizeConsoleAsync(ConsoleSize size, CancellationToken cancellation)
    {
        ControlClient.Answer answer = await _client
            .CallAsync(ControlKinds.ConsoleSize, ControlCodec.Body(size, ControlJson.Default.ConsoleSize), null, [], cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    public async Task<Stream> OpenConsoleAsync(CancellationToken cancellation)
    {
        ControlClient.Answer answer = await _client.CallAsync(ControlKinds.Console, null, null, [], cancellation).ConfigureAwait(false);
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
        lock (_lock)
        {
            if (_disposed)
            {
                return;
            }

            _disposed = true;
        }

        await Task.Run(_client.Dispose).ConfigureAwait(false);
        await _watch.ConfigureAwait(false);
        _errors?.Dispose();
        _process.Dispose();
    }

    internal void Kill()
    {
        Cgroups?.Unthrottle(Group); // a thread without quota does not even die
        _process.Kill();
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
            if (!raise || bytes > _process.FileSizeLimit) // one without a limit keeps none
            {
                _process.LimitFileSize(bytes);
            }

            return null;
        }
        catch (KernelException cause)
        {
            return cause.Message;
        }
    }

    /// <summary>From now on it is this VM's worker.</summary>
    internal void Assign(WorkerFiles files) => _files = files;

    /// <summary>Lets it get ready for a VM that is not known yet.</summary>
    internal async Task PrepareAsync(CancellationToken cancellation)
    {
        using WorkerResources resources = WorkerResources.ForPreparation();
        await _client.CallAsync(ControlKinds.Prepare, null, resources.Names, [.. resources.Handles], cancellation).ConfigureAwait(false);
        _prepared = true;
    }

    /// <exception cref="WorkerException">It cannot be built, or KVM is not to be had.</exception>
    internal async Task CreateAsync(CreateBody body, WorkerResources resources, CancellationToken cancellation)
    {
        if (!_prepared)
        {
            resources.AddKvm();
        }

        ControlClient.Answer answer = await _client
            .CallAsync(ControlKinds.Create, ControlCodec.Body(body, ControlJson.Default.CreateBody), resources.Names, [.. resources.Handles], cancellation).ConfigureAwait(false);
        Confinement = Body(answer, ControlJson.Default.ConfinementBody);
        LimitedFiles(LimitFiles(resources, raise: false)); // it has made its memory, which are files to the kernel
    }

    internal async Task<HelloBody> HelloAsync(CancellationToken cancellation)
    {
        HelloBody hello = await AskAsync(ControlKinds.Hello, ControlJson.Default.HelloBody, cancellation).ConfigureAwait(false);
        SetState(hello.State);
        Confinement = hello.Confinement;
        if (hello.VmId is not null)
        {
            LimitedFiles(_process.FileSizeLimit is null ? "it has had none since its start" : null);
        }

        return hello;
    }

    private async Task CallAsync(string kind, CancellationToken cancellation)
    {
        ControlClient.Answer answer = await _client.CallAsync(kind, null, null, [], cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    private async Task<T> AskAsync<T>(string kind, JsonTypeInfo<T> type, CancellationToken cancellation, JsonElement? question = null) where T : class
    {
        ControlClient.Answer answer = await _client.CallAsync(kind, question, null, [], cancellation).ConfigureAwait(false);
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
            // A worker that was taken over may ask without end: what is beyond this is dropped, and the guest refused by its own deadline.
            if (Interlocked.Increment(ref _dials) <= MostDials)
            {
                _ = Task.Run(() => DialAsync(wish));
            }
            else
            {
                Interlocked.Decrement(ref _dials);
            }
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

    private async Task DialAsync(VsockDial wish)
    {
        using UnixStream? stream = Volatile.Read(ref _vsock) is { } broker ? await broker.ConnectAsync(wish).ConfigureAwait(false) : null;
        VsockDialed body = new(wish.Dial, stream is not null);
        try
        {
            ControlClient.Answer answer = await _client
                .CallAsync(ControlKinds.VsockDialed, ControlCodec.Body(body, ControlJson.Default.VsockDialed), stream is null ? null : ["stream"], stream is null ? [] : [stream], CancellationToken.None).ConfigureAwait(false);
            answer.Descriptor?.Dispose();
        }
        catch (WorkerException)
        {
            // The worker is gone, or does not speak: the guest is refused by its own deadline.
        }
        finally
        {
            Interlocked.Decrement(ref _dials);
        }
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

    // Hung up: then it ends, or is made to. Closed here: the VM goes on, and somebody else will watch it.
    private async Task WatchAsync()
    {
        await _client.Closed.ConfigureAwait(false);
        ProcessEnd? end = null;
        long patience = Environment.TickCount64 + (long)_options.StopTimeout.TotalMilliseconds;
        for (int delay = 1; !_client.ClosedHere && (end = _process.Wait(0)) is null; delay = Math.Min(delay * 2, 50))
        {
            if (Environment.TickCount64 > patience)
            {
                Kill();
            }

            await Task.Delay(delay).ConfigureAwait(false);
        }

        if (end is not { } how)
        {
            return;
        }

        WorkerExit? reported;
        lock (_lock)
        {
            reported = _reported;
        }

        WorkerExit exit = reported ?? _files?.ReadEnd()
            ?? (how.Signal == Sigkill && Cgroups?.WasOutOfMemory(Group) == true ? s_outOfMemory : Died(how));
        _files?.Delete();
        if (_errors is { } errors)
        {
            await Task.WhenAny(errors.Finished, Task.Delay(LastWords)).ConfigureAwait(false); // they come before the news of its end
        }

        _gone(this);
        SetState(WorkerState.Ended);
        _ended.TrySetResult(exit);
    }

    private static readonly TimeSpan LastWords = TimeSpan.FromMilliseconds(500);

    private static readonly WorkerExit s_outOfMemory = new(
        WorkerExitReason.WorkerDied, 1, "out of memory: the kernel killed the worker process, which had reached the memory limit of its control group");

    private static WorkerExit Died(ProcessEnd end) => new(WorkerExitReason.WorkerDied, 1, end switch
    {
        { Known: false } => "the worker process is gone without a word",
        { Signal: Sigsys } => "the worker process was killed by its system call filter (signal 31, SIGSYS): it did what no worker does; the kernel's log (audit type 1326) names the call",
        { Signal: not 0 } => $"the worker process was killed by signal {end.Signal}{(NativeConvert.TryToSignum(end.Signal, out Signum name) ? $" ({name})" : "")}",
        _ => $"the worker process exited with status {end.ExitCode} without a word",
    });

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
