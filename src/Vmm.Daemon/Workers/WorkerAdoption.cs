using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Workers;

/// <summary>Finds the worker, or what is left of it, behind the files of a VM that an earlier daemon ran.</summary>
/// <param name="processes">Takes its process over.</param>
/// <param name="cancellation">This daemon ends: the next one asks again.</param>
internal sealed class WorkerAdoption(WorkerProcesses processes, CancellationToken cancellation)
{
    /// <summary>The worker behind a socket; null when there is none, and nothing is known of its end.</summary>
    internal IWorker? Adopt(WorkerFiles files)
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

            processes.TakeOver(socket, process, peer, out worker);
            worker!.Greet(files, cancellation);
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
                    new WorkerExit(ExitReason.WorkerDied, 1, $"its worker cannot be reached at {files.Socket}: {cause.Message}"));
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
                ExitReason.WorkerDied, 1, $"its worker is gone, and what it left cannot be removed: {cause.Message}");
        }

        return exit is null ? null : new EndedWorker(files.VmId, exit, files.MoveId);
    }
}
