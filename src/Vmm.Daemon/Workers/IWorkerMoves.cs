using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>The VM of a worker moves to another worker, perhaps of another host.</summary>
public interface IWorkerMoves
{
    /// <summary>Whether it can pass its memory to another worker of this host, which then is not there twice.</summary>
    /// <exception cref="WorkerException">It does not answer.</exception>
    Task<bool> CanPassMemoryAsync();

    /// <summary>Begins to send the memory while the VM runs, or is paused; returns when that has begun.</summary>
    /// <param name="wish">How.</param>
    /// <param name="channels">Connected streams, as many as the wish says; not owned. What comes out of them at the other end is for
    /// <see cref="IWorkerLauncher"/>'s <c>ReceiveAsync</c>, in the same order.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <exception cref="WorkerException">The VM has something that cannot be moved, which is named; or is not up.</exception>
    Task BeginAsync(MoveBody wish, IReadOnlyList<FileDescriptorHandle> channels, CancellationToken cancellation);

    /// <summary>How far it is; answered also while the VM is being stopped for it.</summary>
    Task<MoveInfo> StatusAsync(CancellationToken cancellation);

    /// <summary>
    /// Brings the VM to rest, sends what is left and its state, and lets go of its disks: returns when the receiver has said that
    /// everything is there. From then on the VM is stopped, or goes on with <see cref="CancelAsync"/>. When this throws, the VM is as it
    /// was before, as long as the worker lives and answers.
    /// </summary>
    /// <param name="longest">How long it may take.</param>
    /// <param name="cancellation">Ends the waiting only; <see cref="CancelAsync"/> gives the move up.</param>
    /// <exception cref="WorkerException">It did not come to rest, or the receiver did not get everything.</exception>
    Task<MoveInfo> StopAsync(TimeSpan longest, CancellationToken cancellation);

    /// <summary>
    /// Gives the move up, wherever it stands: the VM is as it was before when this returns, and has its disks again. No move is no error.
    /// </summary>
    /// <exception cref="WorkerException">It does not answer; or a disk is in use elsewhere now, and the VM stays paused.</exception>
    Task CancelAsync(CancellationToken cancellation);
}

/// <summary>A worker that gets a VM from another one. Disposing gives it up, and leaves nothing behind, unless it was completed.</summary>
public interface IIncomingWorker : IAsyncDisposable
{
    /// <summary>How far it is.</summary>
    Task<ReceiveInfo> StatusAsync(CancellationToken cancellation);

    /// <summary>
    /// Opens disks, networks and what else the spec names, and builds the VM with what came: it goes on where it was when it is started.
    /// Only when the stage is <see cref="ReceiveStage.Complete"/>, and the sender has let go of the disks.
    /// </summary>
    /// <exception cref="WorkerException">Something cannot be opened, or the state does not fit: this one is to be disposed.</exception>
    Task<IWorker> CompleteAsync(CancellationToken cancellation);
}
