using Microsoft.Win32.SafeHandles;
using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>
/// One launch: what it has taken so far is given back when it fails. A VM that comes from another worker is launched in two steps: its
/// worker first, and what it opens when its memory is there.
/// </summary>
/// <param name="processes">Users and groups of workers.</param>
/// <param name="pool">Where the worker comes from.</param>
/// <param name="options">How workers are started.</param>
/// <param name="files">Names of the VM in the workers' folder.</param>
/// <param name="spec">Its validated spec.</param>
/// <param name="saved">The files of a saved VM, by name; null: it boots.</param>
/// <param name="lazily">Its memory comes from them while it runs.</param>
internal sealed class WorkerLaunch(
    WorkerProcesses processes,
    WorkerPool pool,
    WorkerLauncherOptions options,
    WorkerFiles files,
    VmSpec spec,
    IReadOnlyList<(string Name, FileDescriptorHandle File)>? saved,
    bool lazily)
{
    private static readonly TimeSpan s_build = TimeSpan.FromSeconds(30); // to give the state of a large VM to its parts

    private RemoteWorker? _worker;
    private uint? _user;
    private string? _nextVsock;
    private bool _named;

    /// <summary>Launches it; on failure nothing is left behind.</summary>
    /// <param name="progress">Hears from 0 to 1 how much of the memory is there; null: nobody listens.</param>
    /// <param name="cancellation">Gives up and cleans up.</param>
    /// <exception cref="WorkerException">The VM could not be built.</exception>
    internal async Task<IWorker> RunAsync(Action<double>? progress, CancellationToken cancellation)
    {
        try
        {
            using WorkerResources resources = await Task.Run(OpenResources, cancellation).ConfigureAwait(false);
            resources.TellRemarks(files.VmId);
            _user = processes.Users.Take();
            AddNames(resources);
            RemoteWorker worker = await TakeWorkerAsync(cancellation).ConfigureAwait(false);
            worker.Assign(files);
            Serve(worker, resources);
            (string? noGroup, string? noHugePages) = Limit(worker);
            VmSpec opened = resources.WithBacking(NetMtus.In(spec));
            CreateBody body = new(files.VmId, worker.UserId, VmSpecJson.Write(opened), saved is null ? null : true, lazily ? true : null);
            TimeSpan longest = BuildProgress.Longest(spec) + (saved is null ? TimeSpan.Zero : SaveTime.Longest(spec));
            using (new BuildProgress(worker.ProcessId, spec, progress))
            {
                await worker.CreateAsync(body, resources, longest, cancellation).ConfigureAwait(false);
            }

            Finish(worker, noGroup, noHugePages);
            return worker;
        }
        catch (Exception cause)
        {
            throw await FailAsync(cause).ConfigureAwait(false);
        }
    }

    /// <summary>Takes a worker and lets it get the VM from another one; on failure nothing is left behind.</summary>
    /// <param name="channels">The channels; not owned.</param>
    /// <param name="cancellation">Gives up and cleans up.</param>
    /// <exception cref="WorkerException">There is no worker for it.</exception>
    internal async Task<IIncomingWorker> ReceiveAsync(IReadOnlyList<FileDescriptorHandle> channels, CancellationToken cancellation)
    {
        try
        {
            _user = processes.Users.Take();
            RemoteWorker worker = await TakeWorkerAsync(cancellation).ConfigureAwait(false);
            (string? noGroup, string? noHugePages) = Limit(worker); // before the memory that it makes now
            await worker.Receives.BeginAsync(spec, channels, mayPass: files.MoveId is not null, cancellation).ConfigureAwait(false);
            return new IncomingWorker(
                worker, given => CompleteAsync(worker, noGroup, noHugePages, given), () => new ValueTask(UndoAsync()));
        }
        catch (Exception cause)
        {
            throw await FailAsync(cause).ConfigureAwait(false);
        }
    }

    private async Task<IWorker> CompleteAsync(
        RemoteWorker worker, string? noGroup, string? noHugePages, CancellationToken cancellation)
    {
        try
        {
            using WorkerResources resources = await Task.Run(OpenResources, cancellation).ConfigureAwait(false);
            resources.TellRemarks(files.VmId);
            AddNames(resources);
            worker.Assign(files);
            if (files.MoveId is not null)
            {
                worker.LetGo(); // as long as the VM is another's
                AddNextVsock(resources);
            }

            Serve(worker, resources);
            CreateBody body = new(
                files.VmId, worker.UserId, VmSpecJson.Write(resources.WithBacking(NetMtus.In(spec))), Received: true);
            await worker.CreateAsync(body, resources, s_build, cancellation).ConfigureAwait(false);
            Finish(worker, noGroup, noHugePages);
            return worker;
        }
        catch (Exception cause)
        {
            throw await FailAsync(cause).ConfigureAwait(false);
        }
    }

    private async Task<Exception> FailAsync(Exception cause)
    {
        await UndoAsync().ConfigureAwait(false);
        if (files.MoveId is null)
        {
            LeftNets.Sweep(files.VmId);
        }

        return cause is KernelException ? new WorkerException(ControlCodes.WorkerStartFailed, cause.Message, cause) : cause;
    }

    private WorkerResources OpenResources() => _worker is not null ? WorkerResources.OpenSaved(spec, [], lazily: false, Disks)
        : saved is null ? WorkerResources.Open(spec, Disks) : WorkerResources.OpenSaved(spec, saved, lazily, Disks);

    private DiskAccess Disks => options.Disks with { VmId = files.VmId };

    private void AddNames(WorkerResources resources)
    {
        if (File.Exists(files.Socket))
        {
            files.RemoveStale();
        }

        FileDescriptorHandle listener = PacketListener.Bind(files.Socket);
        _named = true;
        resources.Add("listener", listener);
        SafeFileHandle end = files.MakeEnd();
        nint number = end.DangerousGetHandle();
        end.SetHandleAsInvalid();
        resources.Add("end", new FileDescriptorHandle(number));
    }

    private void AddNextVsock(WorkerResources resources)
    {
        if (spec.Vsock is { } vsock)
        {
            resources.Add(ResourceNames.Vsock, VsockNames.BindNext(vsock.Path));
            _nextVsock = vsock.Path;
        }
    }

    private async Task<RemoteWorker> TakeWorkerAsync(CancellationToken cancellation)
    {
        RemoteWorker worker = await pool.TakeAsync(_user, cancellation).ConfigureAwait(false);
        _worker = worker;
        _user = null; // from here on the worker's end gives it back
        return worker;
    }

    // What it may ask for, of what was opened for it.
    private void Serve(RemoteWorker worker, WorkerResources resources)
    {
        if (spec.Vsock is { } vsock)
        {
            worker.ServeVsock(vsock.Path);
        }

        worker.ServeStorage(spec.Disks, spec.Devices);
        worker.ServeNets(spec.Nets);
        if (resources.Shares is not null)
        {
            worker.ServeShares(spec.Shares, resources.TakeShares());
        }
    }

    // Bounds that its process has before the VM is built. What cannot be had is told.
    private (string? NoGroup, string? NoHugePages) Limit(RemoteWorker worker) =>
        (worker.Bounds.Ungrouped ?? processes.Cgroups.LimitTo(worker.Bounds.Group, spec),
            processes.Cgroups.LimitHugePages(worker.Bounds.Group, spec));

    // Those that it gets afterwards.
    private void Finish(RemoteWorker worker, string? noGroup, string? noHugePages)
    {
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

        RequireConfinement(worker);
    }

    private void RequireConfinement(RemoteWorker worker)
    {
        if (options.RequireConfinement && worker.Confinement is { Missing.Count: > 0 } partial)
        {
            throw new WorkerException(ControlCodes.NotConfined,
                $"the worker is not fully confined, and vmmd was told to require it: {string.Join("; ", partial.Missing)}");
        }
    }

    private async Task UndoAsync()
    {
        processes.Users.GiveBack(_user);
        if (_worker is not null)
        {
            await _worker.RetireAsync().ConfigureAwait(false);
        }

        if (_named)
        {
            files.Delete();
        }

        if (_nextVsock is not null)
        {
            VsockNames.Drop(_nextVsock);
        }
    }
}
