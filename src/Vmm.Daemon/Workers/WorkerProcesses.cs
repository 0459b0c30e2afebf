using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>
/// The worker processes of this daemon, those it starts and those it finds, and what each has of the host as long as it lives: a user, a
/// control group. Any thread.
/// </summary>
/// <param name="options">How workers are started.</param>
internal sealed class WorkerProcesses(WorkerLauncherOptions options)
{
    /// <summary>A worker needs nothing of the daemon's environment.</summary>
    private static readonly Dictionary<string, string> s_noEnvironment = [];

    private long _started, _failed;

    /// <summary>The users that workers run as.</summary>
    internal WorkerUsers Users { get; } = new(options.FirstUserId, (uint)options.UserIdCount);

    /// <summary>The groups that bound them.</summary>
    internal WorkerCgroups Cgroups { get; } = new(options.CgroupRoot);

    /// <summary>Processes started so far.</summary>
    internal long Started => Interlocked.Read(ref _started);

    /// <summary>Processes that could not be started.</summary>
    internal long Failed => Interlocked.Read(ref _failed);

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
                    ProcessHandle.Spawn(options.Program, Arguments(), s_noEnvironment, [theirs.Handle], options.Isolated, says),
                    options,
                    Gone);
                worker.Hear(said);
                string group = Guid.NewGuid().ToString();
                worker.Bounds.Ungrouped = Cgroups.Join(group, worker.ProcessId);
                worker.Bounds.Group = worker.Bounds.Ungrouped is null ? group : "";
                worker.Bounds.Cgroups = Cgroups;
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

    /// <summary>A worker process of an earlier daemon, with the group and the user that it has.</summary>
    /// <param name="socket">The connection to it; owned from here on.</param>
    /// <param name="process">The process; owned from here on.</param>
    /// <param name="peer">Who it is.</param>
    /// <param name="worker">The worker, as soon as there is one: also when this throws.</param>
    internal void TakeOver(PacketSocket socket, ProcessHandle process, PeerCredentials peer, out RemoteWorker? worker)
    {
        worker = new RemoteWorker(socket, process, options, Gone);
        worker.Bounds.Group = Cgroups.Of(peer.ProcessId) ?? "";
        worker.Bounds.Cgroups = Cgroups;
        Users.Reserve(worker, peer.UserId);
    }

    private string[] Arguments() =>
        ["--control", .. options.Isolated ? ["--isolated"] : Array.Empty<string>(),
            .. options.SystemCallFilters ? Array.Empty<string>() : ["--no-seccomp"]];

    private void Gone(RemoteWorker worker)
    {
        Users.GiveBack(worker.UserId);
        Cgroups.Remove(worker.Bounds.Group);
    }
}
