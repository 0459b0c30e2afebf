using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Spec.Devices;

namespace Vmm.Daemon.Workers;

/// <summary>Starts worker processes and finds those that an earlier daemon left running.</summary>
public interface IWorkerLauncher
{
    /// <summary>How long a VM may take to be built and started; with huge pages, or when it was saved, it may take longer.</summary>
    TimeSpan LongestStart => TimeSpan.FromMinutes(1);

    /// <summary>
    /// Takes a worker (from the warm pool when there is one), opens everything the spec needs, passes it and lets the worker build the VM.
    /// The VM does not run yet. On failure nothing is left behind.
    /// </summary>
    /// <param name="vmId">The daemon's id of the VM: a UUID in its text form; names the control socket, so that a later daemon can adopt
    /// it.</param>
    /// <param name="spec">A validated spec.</param>
    /// <param name="progress">Hears from 0 to 1 how much of the memory that is taken at the start is there; null: nobody listens.</param>
    /// <param name="cancellation">Gives up and cleans up.</param>
    /// <exception cref="WorkerException">The VM could not be built; the code and message say why.</exception>
    Task<IWorker> LaunchAsync(string vmId, VmSpec spec, Action<double>? progress, CancellationToken cancellation);

    /// <summary>As <see cref="LaunchAsync"/>, but the VM is a saved one: it goes on where it was when it is started.</summary>
    /// <param name="vmId">The daemon's id of the VM.</param>
    /// <param name="spec">Its spec with the devices that it had.</param>
    /// <param name="files">The files of the saved VM, by name; not owned.</param>
    /// <param name="lazily">Its memory comes from them while it runs.</param>
    /// <param name="progress">Hears from 0 to 1 how much of the memory is there; null: nobody listens.</param>
    /// <param name="cancellation">Gives up and cleans up.</param>
    /// <exception cref="WorkerException">The VM could not be built; the code and message say why.</exception>
    Task<IWorker> RestoreAsync(
        string vmId,
        VmSpec spec,
        IReadOnlyList<(string Name, FileDescriptorHandle File)> files,
        bool lazily,
        Action<double>? progress,
        CancellationToken cancellation);

    /// <summary>
    /// Takes a worker and lets it get a VM from another one. Nothing but memory is taken for it: its disks are still another's.
    /// </summary>
    /// <param name="vmId">The daemon's id of the VM.</param>
    /// <param name="moveId">What its names have besides, when another worker of this host has the VM: 32 hexadecimal digits, until
    /// <see cref="IWorker.TakeNames"/>. Null: it comes from another host, and has the VM's names.</param>
    /// <param name="spec">Its spec with the devices that it has; validated.</param>
    /// <param name="channels">Connected streams, in the order of the sender's; not owned.</param>
    /// <param name="cancellation">Gives up and cleans up.</param>
    /// <exception cref="WorkerException">There is no worker for it.</exception>
    Task<IIncomingWorker> ReceiveAsync(
        string vmId, string? moveId, VmSpec spec, IReadOnlyList<FileDescriptorHandle> channels, CancellationToken cancellation);

    /// <summary>A VM is deleted that has no worker: what was kept for it beside its disks goes, too.</summary>
    /// <param name="vmId">The daemon's id of the VM.</param>
    void Forget(string vmId)
    {
        // Only who keeps something has something to forget.
    }

    /// <summary>A VM has no worker: what one has left on the host that does not go by itself is removed.</summary>
    /// <param name="vmId">The daemon's id of the VM.</param>
    void SweepAfter(string vmId)
    {
        // Only who makes such things has some to remove.
    }

    /// <summary>Figures now.</summary>
    WorkerFigures Figures => default;

    /// <summary>
    /// Connects to every worker that is alive and holds a VM. Sockets of dead workers are removed. Called once, at start. A worker that
    /// hangs keeps nobody waiting: it is answered, too, and <see cref="IWorker.Greeted"/> says later what came of it.
    /// </summary>
    Task<IReadOnlyList<IWorker>> AdoptAsync(CancellationToken cancellation);
}

/// <summary>Figures of the worker pool.</summary>
/// <param name="Ready">Workers that wait for a VM.</param>
/// <param name="Started">Worker processes started since the daemon came.</param>
/// <param name="Failed">Worker processes that could not be started or prepared.</param>
public readonly record struct WorkerFigures(int Ready, long Started, long Failed);

/// <summary>One worker process with its VM. Disposing closes the connection only: the VM goes on.</summary>
public interface IWorker : IAsyncDisposable
{
    /// <summary>The id given at launch.</summary>
    string VmId { get; }

    /// <summary>
    /// The move that it gets the VM by while another worker of this host has the VM's names, or had them; null: it has them itself.
    /// </summary>
    string? MoveId => null;

    /// <summary>The worker that had the VM before is gone: the names of this one are the VM's from now on.</summary>
    /// <exception cref="IOException">They cannot be renamed: it goes on with its own.</exception>
    void TakeNames()
    {
        // Only who has names has some to take.
    }

    /// <summary>Another worker has the VM now: the end of this one leaves alone what is the VM's on the host.</summary>
    void LetGo()
    {
        // Only who has something on the host has to leave it.
    }

    /// <summary>The worker's process id.</summary>
    int ProcessId { get; }

    /// <summary>What the worker last said.</summary>
    VmState State { get; }

    /// <summary>What keeps the worker in bounds; null when that is not known.</summary>
    ConfinementBody? Confinement => null;

    /// <summary>Its time on host CPUs as the kernel has it; null when this host cannot limit it.</summary>
    CpuLimits? CpuLimits => null;

    /// <summary>How often its quota was used up; null when this host cannot limit it.</summary>
    CpuThrottling? CpuThrottling => null;

    /// <summary>Changes its time on host CPUs; null, or why that is not possible.</summary>
    /// <param name="limits">The new limits; the old ones are over.</param>
    /// <param name="expected">The VM is meant to have them: that it cannot is said in <see cref="Confinement"/>, too.</param>
    string? LimitCpu(CpuLimits limits, bool expected);

    /// <summary>
    /// Calls <paramref name="handler"/> on every change of <see cref="State"/>, from any thread, until the answer is disposed; handlers
    /// must be quick.
    /// </summary>
    IDisposable OnStateChanged(Action<VmState> handler);

    /// <summary>
    /// Of one that was found at the start of the daemon: completes when it said who it is (true), or was given up (false: then it is ended,
    /// or this daemon ends). Never faults.
    /// </summary>
    Task<bool> Greeted => Task.FromResult(true);

    /// <summary>
    /// Calls <paramref name="handler"/> with false when the connection to the worker is lost, and with true when it is there again; from
    /// any thread.
    /// </summary>
    void OnConnection(Action<bool> handler)
    {
    }

    /// <summary>Completes when the VM is over and its process is gone; never faults.</summary>
    Task<WorkerExit> Ended { get; }

    /// <summary>Lets the vCPUs run for the first time.</summary>
    Task StartAsync(CancellationToken cancellation);

    /// <summary>Stops the vCPUs between two instructions.</summary>
    Task PauseAsync(CancellationToken cancellation);

    /// <summary>Lets paused vCPUs go on.</summary>
    Task ResumeAsync(CancellationToken cancellation);

    /// <summary>
    /// Lets it write the VM into files, and returns when they are written: the VM is at rest then, and is stopped, or goes on with
    /// <see cref="UndoSaveAsync"/>. When this throws, the VM is as it was before, as long as the worker lives and answers.
    /// </summary>
    /// <param name="files">Empty files by name; not owned.</param>
    /// <param name="bytes">The most that one of them can have.</param>
    /// <param name="longest">How long it may take.</param>
    /// <param name="cancellation">Ends the waiting only; <see cref="UndoSaveAsync"/> gives the save up.</param>
    /// <exception cref="WorkerException">It cannot be saved.</exception>
    Task SaveAsync(
        IReadOnlyList<(string Name, FileDescriptorHandle File)> files, ulong bytes, TimeSpan longest, CancellationToken cancellation);

    /// <summary>Gives a save up, or what one has written: the VM is as it was before when this returns.</summary>
    /// <exception cref="WorkerException">The worker does not answer.</exception>
    Task UndoSaveAsync(CancellationToken cancellation);

    /// <summary>The VM moves to another worker.</summary>
    IWorkerMoves Moves { get; }

    /// <summary>Presses the ACPI power button; what the guest does then is its own affair.</summary>
    /// <exception cref="WorkerException">The VM has no power button.</exception>
    Task PressPowerButtonAsync(CancellationToken cancellation);

    /// <summary>Wakes a guest that sleeps; nothing happens to one that is awake.</summary>
    Task WakeAsync(CancellationToken cancellation);

    /// <summary>
    /// Pulls the plug: vCPUs stop, devices drain what is in flight, the process ends. Kills the process when it does not end within 10 s.
    /// </summary>
    Task StopAsync(CancellationToken cancellation);

    /// <summary>Counters now.</summary>
    Task<WorkerStats> GetStatsAsync(CancellationToken cancellation);

    /// <summary>Everything of its machine that has state, and what happens to it; answered also while an operation hangs.</summary>
    /// <exception cref="WorkerException">It is of an earlier release, or does not answer.</exception>
    Task<UnitList> UnitsAsync(CancellationToken cancellation);

    /// <summary>Changes the rate limits of a device.</summary>
    /// <exception cref="WorkerException">There is no such device, or a number is out of range.</exception>
    Task LimitAsync(LimitsBody limits, CancellationToken cancellation);

    /// <summary>The memory of the VM as it is now; with a wish, right after it was passed to the guest.</summary>
    /// <exception cref="WorkerException">The wish cannot be fulfilled whatever the guest does.</exception>
    Task<VmMemory> MemoryAsync(MemoryWish? wish, CancellationToken cancellation);

    /// <summary>Where the vnodes are meant to be, and how their move stands.</summary>
    Task<WorkerNuma> NumaAsync(CancellationToken cancellation);

    /// <summary>Begins to move a vnode; <see cref="NumaAsync"/> tells how far it is.</summary>
    /// <exception cref="WorkerException">There is no such vnode, or another move goes on.</exception>
    Task RehomeAsync(RehomeBody wish, CancellationToken cancellation);

    /// <summary>Asks the move that goes on to stop.</summary>
    Task CancelRehomeAsync(CancellationToken cancellation);

    /// <summary>Bytes present per vnode and host node, as the kernel counts them; null when it does not let this daemon look.</summary>
    IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? PresentMemory();

    /// <summary>Disks and network devices that are plugged now.</summary>
    Task<DeviceList> DevicesAsync(CancellationToken cancellation);

    /// <summary>Opens a disk and plugs it in.</summary>
    /// <exception cref="WorkerException">It cannot be opened or plugged.</exception>
    Task<DeviceInfo> AddDiskAsync(DiskSpec disk, CancellationToken cancellation);

    /// <summary>Carries out the growth of a disk, and lets the guest see how large the disk is now.</summary>
    /// <param name="device">Its name.</param>
    /// <param name="growth">What is to be done; not owned.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <returns>The size that the guest sees, bytes.</returns>
    /// <exception cref="WorkerException">It cannot grow, or has shrunk.</exception>
    Task<ulong> GrowDiskAsync(string device, DiskGrowth growth, CancellationToken cancellation);

    /// <summary>How large the guest sees a disk, in bytes: the worker's word.</summary>
    /// <exception cref="WorkerException">There is no such disk, or the worker does not answer.</exception>
    Task<ulong> DiskSizeAsync(string device, CancellationToken cancellation);

    /// <summary>
    /// Opens a disk and lets the worker copy one of its own to it, to go on there; returns when that has begun. One at a time.
    /// </summary>
    /// <param name="device">The disk to copy.</param>
    /// <param name="disk">The disk as it shall be afterwards.</param>
    /// <param name="wish">How; where to is what <paramref name="disk"/> says.</param>
    /// <param name="cancellation">Ends the waiting; <see cref="DiskCopyStep.Cancel"/> gives the copy up.</param>
    /// <exception cref="WorkerException">It cannot be copied.</exception>
    Task CopyDiskAsync(string device, DiskSpec disk, DiskCopyWish wish, CancellationToken cancellation);

    /// <summary>
    /// Lets the worker stream a disk of its own; returns when that has begun. Status and steps are those of a copy.
    /// </summary>
    /// <param name="device">The disk.</param>
    /// <param name="wish">How.</param>
    /// <param name="cancellation">Ends the waiting; <see cref="DiskCopyStep.Cancel"/> gives the stream up.</param>
    /// <exception cref="WorkerException">It cannot be streamed.</exception>
    Task StreamDiskAsync(string device, DiskStreamWish wish, CancellationToken cancellation);

    /// <summary>
    /// Opens an image below the top of a disk to write it, and lets the worker commit the disk into it; returns when that has begun. Status
    /// and steps are those of a copy.
    /// </summary>
    /// <param name="device">The disk.</param>
    /// <param name="disk">The disk as it shall be afterwards: in that image.</param>
    /// <param name="bytesPerSecond">Most bytes to copy in a second; null is no limit.</param>
    /// <param name="cancellation">Ends the waiting; <see cref="DiskCopyStep.Cancel"/> gives the commit up.</param>
    /// <exception cref="WorkerException">It cannot be committed: somebody else uses the image, say.</exception>
    Task CommitDiskAsync(string device, DiskSpec disk, ulong? bytesPerSecond, CancellationToken cancellation);

    /// <summary>How far the copy, stream or commit of a disk is.</summary>
    Task<DiskCopyInfo> DiskCopyAsync(CancellationToken cancellation);

    /// <summary>Takes a step of the copy that goes on; to cancel one that is not there is no error.</summary>
    /// <exception cref="WorkerException">It is not possible now, or failed: the copy stands where it stood.</exception>
    Task StepDiskCopyAsync(string device, DiskCopyStep step, CancellationToken cancellation);

    /// <summary>Opens empty differencing disks and lets the worker put them on its disks, all at one instant.</summary>
    /// <param name="disks">The disks with what comes on top of each.</param>
    /// <param name="cut">Cuts the change logs of those that have one, at that instant.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <exception cref="WorkerException">It did not, or does not answer: <see cref="HasSnapshotAsync"/> says which.</exception>
    Task SnapshotDisksAsync(IReadOnlyList<(string Device, DiskSpec Overlay)> disks, bool cut, CancellationToken cancellation);

    /// <summary>Logs what is written to a disk from now on; a log that it has is ended first.</summary>
    /// <param name="device">The disk.</param>
    /// <param name="log">The log's file; the caller's.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <exception cref="WorkerException">It cannot, or is of a release without logs: the disk goes on as it was.</exception>
    Task LogChangesAsync(string device, FileDescriptorHandle log, CancellationToken cancellation);

    /// <summary>Logs no more; nothing where there is no log.</summary>
    /// <exception cref="WorkerException">It does not answer, or cannot.</exception>
    Task StopLogAsync(string device, CancellationToken cancellation);

    /// <summary>Whether the worker has put these differencing disks on: all, or none. What it was asked for before is over then.</summary>
    /// <exception cref="WorkerException">It does not answer.</exception>
    Task<bool> HasSnapshotAsync(IReadOnlyList<SnapshotDisk> disks, CancellationToken cancellation);

    /// <summary>Opens a tap and plugs it in.</summary>
    /// <exception cref="WorkerException">It cannot be opened or plugged.</exception>
    Task<DeviceInfo> AddNetAsync(NetSpec net, CancellationToken cancellation);

    /// <summary>Asks the guest to let go of a device and waits so long; with <paramref name="force"/> it is taken then.</summary>
    /// <exception cref="WorkerException">It cannot be removed, whatever the guest does.</exception>
    Task<DeviceRemoval> RemoveDeviceAsync(string device, TimeSpan patience, bool force, CancellationToken cancellation);

    /// <summary>Calls <paramref name="handler"/> for every device that is gone, from any thread; handlers must be quick.</summary>
    void OnDeviceRemoved(Action<RemovalBody> handler);

    /// <summary>
    /// Calls <paramref name="handler"/> when the guest tells something of itself, from any thread; handlers must be quick. A worker that
    /// was taken over may say anything, and often.
    /// </summary>
    void OnGuestEvent(Action<GuestEvent> handler)
    {
    }

    /// <summary>
    /// Calls <paramref name="handler"/> when the host fails requests of a disk, from any thread; handlers must be quick. A worker that was
    /// taken over may name any disk, and often.
    /// </summary>
    void OnDiskError(Action<DiskErrorBody> handler)
    {
    }

    /// <summary>
    /// Calls <paramref name="handler"/> when the VM is paused because a disk waits for the host, or goes on by itself; as
    /// <see cref="OnDiskError"/>. <see cref="State"/> has changed before.
    /// </summary>
    void OnDiskStall(Action<DiskStallBody> handler)
    {
    }

    /// <summary>
    /// Calls <paramref name="handler"/> when pages of a VM with a resident limit go out no more, with the reason, and with null when they
    /// do again; as <see cref="OnDiskError"/>.
    /// </summary>
    void OnPagingStopped(Action<string?> handler)
    {
    }

    /// <summary>
    /// Calls <paramref name="handler"/> when all memory of a VM is there that was restored lazily; as <see cref="OnDiskError"/>.
    /// </summary>
    void OnMemoryRestored(Action<MemoryRestoreInfo> handler)
    {
    }

    /// <summary>
    /// Connects the guest's vsock to ports of the host from now on: to the sockets at this path with <c>_PORT</c> behind it.
    /// </summary>
    void ServeVsock(string path)
    {
    }

    /// <summary>
    /// Connects these disks to their servers, and devices to the programs that serve them, again, from now on, when the worker asks for it.
    /// </summary>
    void ServeStorage(IEnumerable<DiskSpec> disks, IEnumerable<DeviceSpec> devices)
    {
    }

    /// <summary>Starts the program of a user-mode network among these again, from now on, when the worker has lost it.</summary>
    void ServeNets(IEnumerable<NetSpec> nets)
    {
    }

    /// <summary>Starts the programs of these shared folders again, from now on, when the worker asks for it.</summary>
    void ServeShares(IReadOnlyList<ShareSpec> shares)
    {
    }

    /// <summary>
    /// A stream to the serial console. Starts with the last 64 KiB of output; several may be open, each sees all output, input goes to the
    /// guest in turn.
    /// </summary>
    Task<Stream> OpenConsoleAsync(CancellationToken cancellation);

    /// <summary>A stream to the guest's standard agent; the one that there was ends.</summary>
    /// <param name="farewell">What the guest gets when the stream ends, whatever ended it; null is nothing.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <exception cref="WorkerException">No agent has the port open (<c>no-agent</c>), or the worker knows no such port.</exception>
    Task<Stream> OpenAgentAsync(byte[]? farewell, CancellationToken cancellation);

    /// <summary>Tells the guest's virtio console how big the terminal is; a VM without one takes no notice.</summary>
    Task ResizeConsoleAsync(ConsoleSize size, CancellationToken cancellation);
}

/// <summary>A worker refused or failed.</summary>
public sealed class WorkerException : Exception
{
    /// <summary>Creates the error.</summary>
    /// <param name="code">Stable code for programs, e.g. <c>disk-open-failed</c>, <c>kvm-unavailable</c>, <c>kernel-invalid</c>,
    /// <c>wrong-state</c>, <c>worker-died</c>.</param>
    /// <param name="message">For people: what, which object, what to do.</param>
    /// <param name="inner">The cause, when it is known here.</param>
    public WorkerException(string code, string message, Exception? inner = null) : base(message, inner) => Code = code;

    /// <summary>Stable code for programs.</summary>
    public string Code { get; }
}
