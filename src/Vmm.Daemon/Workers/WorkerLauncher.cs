using Microsoft.Extensions.Hosting;
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

    private readonly WorkerLauncherOptions _options;

    /// <summary>Prepares the folder.</summary>
    /// <exception cref="IOException">The folder cannot be made.</exception>
    public WorkerLauncher(WorkerLauncherOptions options)
    {
        _options = options;
        if (!OperatingSystem.IsLinux())
        {
            throw new PlatformNotSupportedException("workers need Linux with KVM");
        }

        Processes = new WorkerProcesses(options);
        Pool = new WorkerPool(Processes, options);
        Directory.CreateDirectory(options.Directory, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    /// <inheritdoc/>
    public TimeSpan LongestStart => _options.LongestStart;

    /// <inheritdoc/>
    public WorkerFigures Figures => new(Pool.Ready, Processes.Started, Processes.Failed);

    /// <summary>The processes.</summary>
    internal WorkerProcesses Processes { get; }

    /// <summary>Those that are ready.</summary>
    internal WorkerPool Pool { get; }

    /// <summary>Starts to fill the pool.</summary>
    public Task StartAsync(CancellationToken cancellationToken)
    {
        Pool.Fill();
        return Task.CompletedTask;
    }

    /// <summary>Ends the ready workers; none is started any more.</summary>
    public Task StopAsync(CancellationToken cancellationToken) => DisposeAsync().AsTask();

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => Pool.DisposeAsync();

    /// <inheritdoc/>
    public void Forget(string vmId) => _options.Disks.Variables?.Delete(vmId);

    /// <inheritdoc/>
    public void SweepAfter(string vmId) => LeftNets.Sweep(vmId);

    /// <inheritdoc/>
    public Task<IWorker> LaunchAsync(string vmId, VmSpec spec, Action<double>? progress, CancellationToken cancellation) =>
        LaunchAsync(vmId, spec, saved: null, lazily: false, progress, cancellation);

    /// <inheritdoc/>
    public Task<IWorker> RestoreAsync(
        string vmId,
        VmSpec spec,
        IReadOnlyList<(string Name, FileDescriptorHandle File)> files,
        bool lazily,
        Action<double>? progress,
        CancellationToken cancellation) => LaunchAsync(vmId, spec, files, lazily, progress, cancellation);

    /// <inheritdoc/>
    public Task<IIncomingWorker> ReceiveAsync(
        string vmId, string? moveId, VmSpec spec, IReadOnlyList<FileDescriptorHandle> channels, CancellationToken cancellation)
    {
        RequireId(vmId);
        WorkerFiles files = new(_options.Directory, vmId, moveId);
        return new WorkerLaunch(Processes, Pool, _options, files, spec, saved: null, lazily: false).ReceiveAsync(channels, cancellation);
    }

    /// <summary>
    /// As promised by the interface; a VM that ended while no daemon was there, and whose worker left a record of why, is answered too: as
    /// a worker that has ended, with process id 0. Its record is gone then.
    /// </summary>
    public async Task<IReadOnlyList<IWorker>> AdoptAsync(CancellationToken cancellation)
    {
        WorkerAdoption adoption = new(Processes, Pool.Stopping);
        List<IWorker> adopted = [.. WorkerFiles.List(_options.Directory).Select(adoption.Adopt).OfType<IWorker>()];
        await Task.WhenAny(
            Task.WhenAll(adopted.Select(worker => worker.Greeted)), Task.Delay(s_greeting, cancellation)).ConfigureAwait(false);
        cancellation.ThrowIfCancellationRequested();

        Processes.Cgroups.Sweep(adopted.OfType<RemoteWorker>().Select(worker => worker.Bounds.Group).ToHashSet(StringComparer.Ordinal));
        return adopted;
    }

    private async Task<IWorker> LaunchAsync(
        string vmId,
        VmSpec spec,
        IReadOnlyList<(string Name, FileDescriptorHandle File)>? saved,
        bool lazily,
        Action<double>? progress,
        CancellationToken cancellation)
    {
        RequireId(vmId);
        WorkerLaunch launch = new(Processes, Pool, _options, new WorkerFiles(_options.Directory, vmId), spec, saved, lazily);
        return await launch.RunAsync(progress, cancellation).ConfigureAwait(false);
    }

    private static void RequireId(string vmId)
    {
        if (!Guid.TryParse(vmId, out _))
        {
            throw new ArgumentException($"\"{vmId}\" is not a UUID", nameof(vmId));
        }
    }
}
