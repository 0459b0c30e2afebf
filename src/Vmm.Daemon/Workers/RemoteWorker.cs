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
    private static readonly TimeSpan s_lastWords = TimeSpan.FromMilliseconds(500), s_nextConnection = TimeSpan.FromMilliseconds(100);

    private readonly VsockDials _dials;
    private ResidencyReport? _residency;
    private readonly WorkerEvents _events;
    private readonly WorkerLink _link;
    private readonly WorkerSaves _saves;
    private readonly WorkerLauncherOptions _options;
    private readonly Lock _lock = new();
    private readonly TaskCompletionSource<WorkerExit> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Action<RemoteWorker> _gone;
    private readonly Task _finish;
    private WorkerErrors? _errors;
    private WorkerFiles? _files;
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
        Bounds = new WorkerBounds(process, ReportLine);
        _events = new WorkerEvents(_dials, Bounds.Unthrottle);
        _link = new WorkerLink(socket, process, options, _events.Handle, () => HelloAsync(CancellationToken.None), () => Kill());
        _saves = new WorkerSaves(_link, Bounds);
        _finish = FinishAsync();
    }

    public string VmId => _files?.VmId ?? "";

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

    public WorkerState State => _events.State;

    public IDisposable OnStateChanged(Action<WorkerState> handler) => _events.OnStateChanged(handler);

    public string? LimitCpu(CpuLimits limits, bool expected) => Bounds.LimitCpu(limits, expected);

    public Task StartAsync(CancellationToken cancellation) => CallAsync(ControlKinds.Start, cancellation);

    public Task PauseAsync(CancellationToken cancellation) => CallAsync(ControlKinds.Pause, cancellation);

    public Task ResumeAsync(CancellationToken cancellation) => CallAsync(ControlKinds.Resume, cancellation);

    public Task SaveAsync(
        IReadOnlyList<(string Name, FileDescriptorHandle File)> files, ulong bytes, TimeSpan longest, CancellationToken cancellation) =>
        _saves.SaveAsync(files, bytes, longest, cancellation);

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

    public Task<WorkerStats> GetStatsAsync(CancellationToken cancellation) => AskAsync(ControlKinds.Stats, ControlJson.Default.WorkerStats, cancellation);

    public Task LimitAsync(LimitsBody limits, CancellationToken cancellation) =>
        CallAsync(ControlKinds.Limits, cancellation, ControlCodec.Body(limits, ControlJson.Default.LimitsBody));

    public Task<VmMemory> MemoryAsync(MemoryWish? wish, CancellationToken cancellation) =>
        AskAsync(ControlKinds.Memory, ControlJson.Default.VmMemory, cancellation, wish is null ? null : ControlCodec.Body(wish, ControlJson.Default.MemoryWish));

    public Task<WorkerNuma> NumaAsync(CancellationToken cancellation) => AskAsync(ControlKinds.Numa, ControlJson.Default.WorkerNuma, cancellation);

    public Task RehomeAsync(RehomeBody wish, CancellationToken cancellation) =>
        CallAsync(ControlKinds.Rehome, cancellation, ControlCodec.Body(wish, ControlJson.Default.RehomeBody));

    public Task CancelRehomeAsync(CancellationToken cancellation) => CallAsync(ControlKinds.RehomeCancel, cancellation);

    public IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? PresentMemory() =>
        LazyInitializer.EnsureInitialized(ref _residency, () => ResidencyReport.Of(ProcessId)).Read();

    public void ServeVsock(string path) => _dials.Serve(path);

    public void OnConnection(Action<bool> handler) => _link.OnChanged(handler);

    public Task<DeviceList> DevicesAsync(CancellationToken cancellation) => AskAsync(ControlKinds.Devices, ControlJson.Default.DeviceList, cancellation);

    public async Task<DeviceInfo> AddDiskAsync(DiskSpec disk, CancellationToken cancellation)
    {
        using WorkerResources resources = WorkerResources.Open(disk, _options.Storage);
        if (Bounds.AddMemory(MemoryDisks.BytesOf(disk)) is { } problem)
        {
            throw new WorkerException(ControlCodes.DiskInMemory, $"disk {disk.Path} lies in memory, and the worker's memory limit cannot be raised for it: {problem}");
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
            : throw new WorkerException(ControlCodes.BadAnswer, $"the worker answered nonsense: asked to remove {device}, it speaks of {removal.Device}");
    }

    public void OnGuestEvent(Action<GuestEvent> handler) => _events.OnGuestEvent(handler);

    public void OnDiskError(Action<DiskErrorBody> handler) => _events.OnDiskError(handler);

    public void OnDeviceRemoved(Action<RemovalBody> handler) => _events.OnDeviceRemoved(handler);

    private async Task<DeviceInfo> PlugAsync(PlugBody body, WorkerResources resources, CancellationToken cancellation)
    {
        if (Bounds.LimitFiles(resources.LargestFile, raise: true) is { } problem)
        {
            throw new WorkerException(ControlCodes.NotConfined, $"the worker's limit on file sizes cannot be raised for this disk: {problem}");
        }

        ControlClient.Answer answer = await _link.Client
            .CallAsync(ControlKinds.AddDevice, ControlCodec.Body(body, ControlJson.Default.PlugBody), resources.Names, [.. resources.Handles], cancellation).ConfigureAwait(false);
        _events.ExpectRemovals(1);
        return Body(answer, ControlJson.Default.DeviceInfo);
    }

    public Task ResizeConsoleAsync(ConsoleSize size, CancellationToken cancellation) =>
        CallAsync(ControlKinds.ConsoleSize, cancellation, ControlCodec.Body(size, ControlJson.Default.ConsoleSize));

    public async Task<Stream> OpenConsoleAsync(CancellationToken cancellation)
    {
        ControlClient.Answer answer = await _link.Client.CallAsync(ControlKinds.Console, null, null, [], cancellation).ConfigureAwait(false);
        if (answer.Descriptor is not { } descriptor)
        {
            throw new WorkerException(ControlCodes.BadAnswer, "the worker sent no console");
        }

        try
        {
            return new NetworkStream(new Socket(new SafeSocketHandle(descriptor.Detach(), ownsHandle: true)), ownsSocket: true);
        }
        catch (Exception cause) when (cause is SocketException or IOException or ArgumentException)
        {
            throw new WorkerException(ControlCodes.BadAnswer, "the worker sent something that is no stream as console", cause);
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
        Bounds.Unthrottle(); // a thread without quota does not even die
        _link.Process.Kill();
    }

    private void ReportLine(string line)
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

        if (resources.Names.Count > ControlCodec.MaxDescriptors && _link.Client.Peer is null)
        {
            await HelloAsync(cancellation).ConfigureAwait(false); // a new process: whether it takes that many is not known yet
        }

        ControlClient.Answer answer = await _link.Client
            .CallAsync(ControlKinds.Create, ControlCodec.Body(body, ControlJson.Default.CreateBody), resources.Names, [.. resources.Handles], cancellation, longer).ConfigureAwait(false);
        Bounds.Confinement = Body(answer, ControlJson.Default.ConfinementBody);
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
        Greeted = GreetAsync(files, cancellation);
    }

    private async Task<bool> GreetAsync(WorkerFiles files, CancellationToken cancellation)
    {
        _link.IsNeeded = true; // a connection that is lost before it said hello is made again, too
        try
        {
            if (await HelloOnAnyConnectionAsync(cancellation).ConfigureAwait(false) is not { } hello)
            {
                return false; // its process ended, or this daemon does
            }

            if (string.Equals(hello.VmId, files.VmId, StringComparison.Ordinal))
            {
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

    /// <summary>Its hello, on this connection or on the next ones when this one is lost; null when the process ends first.</summary>
    private async Task<HelloBody?> HelloOnAnyConnectionAsync(CancellationToken cancellation)
    {
        while (!_link.Ended.IsCompleted)
        {
            try
            {
                return await HelloAsync(cancellation).ConfigureAwait(false);
            }
            catch (WorkerException lost) when (lost.Code is ControlCodes.WorkerDied)
            {
                await Task.WhenAny(_link.Ended, Task.Delay(s_nextConnection, cancellation)).ConfigureAwait(false);
                cancellation.ThrowIfCancellationRequested();
            }
        }

        return null;
    }

    internal async Task<HelloBody> HelloAsync(CancellationToken cancellation)
    {
        HelloRequest request = new(ControlVersion.Current, ControlVersion.Features);
        ControlClient client = _link.Client;
        ControlClient.Answer answer = await client
            .CallAsync(ControlKinds.Hello, ControlCodec.Body(request, ControlJson.Default.HelloRequest), null, [], cancellation).ConfigureAwait(false);
        HelloBody hello = Body(answer, ControlJson.Default.HelloBody);
        client.Peer = ControlPeer.Of(hello);
        _events.SetState(hello.State);
        Bounds.Confinement = hello.Confinement;
        if (hello.VmId is not null)
        {
            Bounds.AddFileLimit(_link.Process.FileSizeLimit is null ? "it has had none since its start" : null);
        }

        return hello;
    }

    private async Task CallAsync(string kind, CancellationToken cancellation, JsonElement? body = null)
    {
        ControlClient.Answer answer = await _link.Client.CallAsync(kind, body, null, [], cancellation).ConfigureAwait(false);
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
            : throw new WorkerException(ControlCodes.BadAnswer, $"the worker answered nonsense: {SafeText.Line(problem, 1024)}");
    }

    private async Task DialedAsync(VsockDialed body, UnixStream? stream)
    {
        ControlClient.Answer answer = await _link.Client
            .CallAsync(ControlKinds.VsockDialed, ControlCodec.Body(body, ControlJson.Default.VsockDialed), stream is null ? null : ["stream"], stream is null ? [] : [stream], CancellationToken.None)
            .ConfigureAwait(false);
        answer.Descriptor?.Dispose();
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
            (reported, killedFor) = (_events.Reported, _killedFor);
            _finished = true;
        }

        WorkerExit exit = reported ?? _files?.ReadEnd()
            ?? (killedFor is null ? WorkerExits.Of(how, Bounds.WasOutOfMemory) : new WorkerExit(WorkerExitReason.WorkerDied, 1, killedFor));
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
        _events.SetState(WorkerState.Ended);
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
