using Microsoft.Extensions.Hosting;
using Microsoft.Win32.SafeHandles;
using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Starts vmm-worker processes, keeps a few ready, and adopts those of an earlier daemon. Disposing ends the ready ones; VMs go on.
/// </summary>
public sealed class WorkerLauncher : IWorkerLauncher, IHostedService, IAsyncDisposable
{
    // What a healthy worker needs to answer, with room; one that needs longer is waited for in the background.
    private static readonly TimeSpan s_greeting = TimeSpan.FromSeconds(2);

    // The VM that took a worker from the pool starts first; the next worker's start would take its CPU.
    private static readonly TimeSpan s_afterLaunch = TimeSpan.FromMilliseconds(250);

    /// <summary>A worker needs nothing of the daemon's environment.</summary>
    private static readonly Dictionary<string, string> NoEnvironment = [];

    private readonly CancellationTokenSource _stopping = new();
    private readonly WorkerLauncherOptions _options;
    private readonly Lock _lock = new();
    private readonly Queue<RemoteWorker> _pool = new();
    private readonly WorkerUsers _users;
    private readonly WorkerCgroups _cgroups;
    private Task _refill = Task.CompletedTask;
    private long _started, _failed;
    private bool _disposed;

    /// <summary>Prepares the folder.</summary>
    /// <exception cref="IOException">The folder cannot be made.</exception>
    public WorkerLauncher(WorkerLauncherOptions options)
    {
        _options = options;
        if (!OperatingSystem.IsLinux())
        {
            throw new PlatformNotSupportedException("workers need Linux with KVM");
        }

        _cgroups = new WorkerCgroups(options.CgroupRoot);
        _users = new WorkerUsers(options.FirstUserId, (uint)options.UserIdCount);
        Directory.CreateDirectory(options.Directory, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    /// <summary>Starts to fill the pool.</summary>
    public Task StartAsync(CancellationToken cancellationToken)
    {
        Refill(TimeSpan.Zero);
        return Task.CompletedTask;
    }

    /// <summary>Ends the ready workers; none is started any more.</summary>
    public Task StopAsync(CancellationToken cancellationToken) => DisposeAsync().AsTask();

    /// <inheritdoc/>
    public WorkerFigures Figures => new(Ready, Interlocked.Read(ref _started), Interlocked.Read(ref _failed));

    /// <summary>Ready workers now.</summary>
    public int Ready
    {
        get
        {
            lock (_lock)
            {
                return _pool.Count;
            }
        }
    }

    /// <inheritdoc/>
    public Task<IWorker> LaunchAsync(string vmId, VmSpec spec, Action<double>? progress, CancellationToken cancellation) =>
        LaunchAsync(vmId, spec, saved: null, progress, cancellation);

    /// <inheritdoc/>
    public Task<IWorker> RestoreAsync(
        string vmId,
        VmSpec spec,
        IReadOnlyList<(string Name, FileDescriptorHandle File)> files,
        Action<double>? progress,
        CancellationToken cancellation) => LaunchAsync(vmId, spec, files, progress, cancellation);

    private async Task<IWorker> LaunchAsync(
        string vmId,
        VmSpec spec,
        IReadOnlyList<(string Name, FileDescriptorHandle File)>? saved,
        Action<double>? progress,
        CancellationToken cancellation)
    {
        if (!Guid.TryParse(vmId, out _))
        {
            throw new ArgumentException($"\"{vmId}\" is not a UUID", nameof(vmId));
        }

        WorkerFiles files = new(_options.Directory, vmId);
        RemoteWorker? worker = null;
        bool named = false;
        uint? user = null;
        try
        {
            using WorkerResources resources = await Task.Run(
                () =>
                    saved is null ? WorkerResources.Open(spec, _options.Storage) : WorkerResources.OpenSaved(spec, saved, _options.Storage),
                cancellation).ConfigureAwait(false);
            user = _users.Take();
            AddNames(files, resources, ref named);
            worker = await TakeWorkerAsync(user, cancellation).ConfigureAwait(false);
            user = null; // from here on the worker's end gives it back
            worker.Assign(files);
            if (spec.Vsock is { } vsock)
            {
                worker.ServeVsock(vsock.Path);
            }

            string? noGroup = worker.Bounds.Ungrouped ?? _cgroups.LimitTo(worker.Bounds.Group, spec);
            string? noHugePages = _cgroups.LimitHugePages(worker.Bounds.Group, spec);
            CreateBody body = new(vmId, worker.UserId, VmSpecJson.Write(WorkerResources.WithMtus(spec)), saved is null ? null : true);
            TimeSpan longest = saved is null ? BuildProgress.Longest(spec) : BuildProgress.Longest(spec) + SaveTime.Longest(spec);
            using (new BuildProgress(worker.ProcessId, spec, progress))
            {
                await worker.CreateAsync(body, resources, longest, cancellation).ConfigureAwait(false);
            }

            worker.Bounds.AddGroup(noGroup);
            if (noHugePages is not null)
            {
                worker.Bounds.AddHugePageProblem(noHugePages);
            }

            if ((spec.CpuQuota ?? spec.CpuWeight) is not null)
            {
                // now that it is built: to build it is not the guest's work
                _ = worker.LimitCpu(new CpuLimits(spec.CpuQuota, spec.CpuWeight), expected: true);
            }

            if (_options.RequireConfinement && worker.Confinement is { Missing.Count: > 0 } partial)
            {
                throw new WorkerException(ControlCodes.NotConfined,
                    $"the worker is not fully confined, and vmmd was told to require it: {string.Join("; ", partial.Missing)}");
            }

            return worker;
        }
        catch (Exception cause)
        {
            _users.GiveBack(user);
            if (worker is not null)
            {
                await worker.RetireAsync().ConfigureAwait(false);
            }

            if (named)
            {
                files.Delete();
            }

            throw cause is KernelException ? new WorkerException(ControlCodes.WorkerStartFailed, cause.Message, cause) : cause;
        }
    }

    /// <summary>
    /// As promised by the interface; a VM that ended while no daemon was there, and whose worker left a record of why, is answered too: as
    /// a worker that has ended, with process id 0. Its record is gone then.
    /// </summary>
    public async Task<IReadOnlyList<IWorker>> AdoptAsync(CancellationToken cancellation)
    {
        List<IWorker> adopted = [];
        foreach (WorkerFiles files in WorkerFiles.List(_options.Directory))
        {
            if (Adopt(files) is { } worker)
            {
                adopted.Add(worker);
            }
        }

        await Task.WhenAny(
            Task.WhenAll(adopted.Select(worker => worker.Greeted)), Task.Delay(s_greeting, cancellation)).ConfigureAwait(false);
        cancellation.ThrowIfCancellationRequested();

        _cgroups.Sweep(adopted.OfType<RemoteWorker>().Select(worker => worker.Bounds.Group).ToHashSet(StringComparer.Ordinal));
        return adopted;
    }

    /// <inheritdoc/>
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

        await _stopping.CancelAsync().ConfigureAwait(false);
        await _refill.ConfigureAwait(false);
        while (_pool.TryDequeue(out RemoteWorker? worker))
        {
            await worker.RetireAsync().ConfigureAwait(false);
        }

        _stopping.Dispose();
    }

    /// <summary>The worker behind a socket; null when there is none, and nothing is known of its end.</summary>
    private IWorker? Adopt(WorkerFiles files)
    {
        PacketSocket? socket = null;
        RemoteWorker? worker = null;
        try
        {
            socket = PacketSocket.Connect(files.Socket);
            PeerCredentials peer = socket.Peer;
            ProcessHandle process = ProcessHandle.Open(peer.ProcessId);
            // Not hung up after the pidfd was taken: the pidfd is not of another process with the same number.
            if (socket.HasHungUp)
            {
                process.Dispose();
                socket.Dispose();
                return Ended(files, null);
            }

            worker = new RemoteWorker(socket, process, _options, Gone);
            worker.Bounds.Group = _cgroups.Of(peer.ProcessId) ?? "";
            worker.Bounds.Cgroups = _cgroups;
            _users.Reserve(worker, peer.UserId);
            worker.Greet(files, _stopping.Token);
            return worker;
        }
        catch (KernelException cause) when (cause.Errno is Errno.ECONNREFUSED or Errno.ENOENT or Errno.ESRCH)
        {
            socket?.Dispose();
            return Ended(files, null);
        }
#pragma warning disable CA1031 // One VM's files, whatever is wrong with them, are no reason for the daemon not to start.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            if (worker is null)
            {
                socket?.Dispose();
                return Ended(files,
                    new WorkerExit(WorkerExitReason.WorkerDied, 1, $"its worker cannot be reached at {files.Socket}: {cause.Message}"));
            }

            worker.Kill($"its worker could not be taken over and was ended: {cause.Message}");
            return worker;
        }
    }

    /// <summary>What a worker that is gone left; without a record of its end, <paramref name="otherwise"/>.</summary>
    private static EndedWorker? Ended(WorkerFiles files, WorkerExit? otherwise)
    {
        WorkerExit? exit = files.ReadEnd() ?? otherwise;
        try
        {
            files.Delete();
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            exit ??= new WorkerExit(
                WorkerExitReason.WorkerDied, 1, $"its worker is gone, and what it left cannot be removed: {cause.Message}");
        }

        return exit is null ? null : new EndedWorker(files.VmId, exit);
    }

    private void AddNames(WorkerFiles files, WorkerResources resources, ref bool named)
    {
        if (File.Exists(files.Socket))
        {
            files.RemoveStale();
        }

        FileDescriptorHandle listener = PacketListener.Bind(files.Socket);
        named = true;
        resources.Add("listener", listener);
        SafeFileHandle end = files.MakeEnd();
        nint number = end.DangerousGetHandle();
        end.SetHandleAsInvalid();
        resources.Add("end", new FileDescriptorHandle(number));
    }

    /// <summary>A worker that owns the user: of the pool, else a new one. Those of the pool that died meanwhile are let go.</summary>
    private async Task<RemoteWorker> TakeWorkerAsync(uint? user, CancellationToken cancellation)
    {
        while (true)
        {
            RemoteWorker? worker;
            lock (_lock)
            {
                ObjectDisposedException.ThrowIf(_disposed, this);
                _pool.TryDequeue(out worker);
            }

            bool pooled = worker is not null;
            worker ??= await Task.Run(Spawn, cancellation).ConfigureAwait(false);
            if (!worker.Closed.IsCompleted && worker.TryOwn(user))
            {
                Refill(s_afterLaunch);
                return worker;
            }

            _ = worker.RetireAsync();
            if (!pooled)
            {
                throw new WorkerException(ControlCodes.WorkerStartFailed,
                    $"a new worker process ({_options.Program}) ended at once: its reason is in the daemon's log");
            }
        }
    }

    /// <summary>A new worker process without a VM.</summary>
    /// <exception cref="KernelException">It cannot be started.</exception>
    internal RemoteWorker Spawn()
    {
        (PacketSocket ours, PacketSocket theirs) = PacketSocket.CreatePair();
        (UnixStream said, FileDescriptorHandle says) = UnixStream.CreatePair();
        using (theirs)
        using (said)
        using (says)
        {
            try
            {
                RemoteWorker worker = new(
                    ours,
                    ProcessHandle.Spawn(_options.Program, Arguments(), NoEnvironment, [theirs.Handle], _options.Isolated, says),
                    _options,
                    Gone);
                worker.Hear(said);
                string group = Guid.NewGuid().ToString();
                worker.Bounds.Ungrouped = _cgroups.Join(group, worker.ProcessId);
                worker.Bounds.Group = worker.Bounds.Ungrouped is null ? group : "";
                worker.Bounds.Cgroups = _cgroups;
                Interlocked.Increment(ref _started);
                return worker;
            }
            catch
            {
                Interlocked.Increment(ref _failed);
                ours.Dispose();
                throw;
            }
        }
    }

    private string[] Arguments() =>
        ["--control", .. _options.Isolated ? ["--isolated"] : Array.Empty<string>(),
            .. _options.SystemCallFilters ? Array.Empty<string>() : ["--no-seccomp"]];

    // One at a time, in the background: a launch is not to wait for the pool.
    private void Refill(TimeSpan delay)
    {
        lock (_lock)
        {
            if (!_disposed && _options.PoolSize > 0)
            {
                _refill = _refill.ContinueWith(_ => FillAsync(delay), TaskScheduler.Default).Unwrap();
            }
        }
    }

    private async Task FillAsync(TimeSpan delay)
    {
        try
        {
            await Task.Delay(delay, _stopping.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            return;
        }

        while (true)
        {
            lock (_lock)
            {
                if (_disposed || _pool.Count >= _options.PoolSize)
                {
                    return;
                }
            }

            RemoteWorker? worker = null;
            try
            {
                worker = Spawn();
                await worker.HelloAsync(_stopping.Token).ConfigureAwait(false);
                await worker.PrepareAsync(_stopping.Token).ConfigureAwait(false);
                lock (_lock)
                {
                    _pool.Enqueue(worker);
                }
            }
            catch (Exception cause) when (cause is KernelException or WorkerException or OperationCanceledException)
            {
                if (worker is not null)
                {
                    await worker.RetireAsync().ConfigureAwait(false);
                }

                return; // the next launch meets the same trouble and reports it
            }
        }
    }

    private void Gone(RemoteWorker worker)
    {
        _users.GiveBack(worker.UserId);
        _cgroups.Remove(worker.Bounds.Group);
    }
}
