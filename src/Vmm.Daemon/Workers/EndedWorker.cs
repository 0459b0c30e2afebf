using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>A worker that ended while no daemon was there and left a record of why. There is no process any more.</summary>
internal sealed class EndedWorker(string vmId, WorkerExit exit, string? moveId = null) : IWorker
{
    public string VmId { get; } = vmId;

    public string? MoveId { get; } = moveId;

    public int ProcessId => 0;

    public VmState State => VmState.Stopped;

    public Task<WorkerExit> Ended { get; } = Task.FromResult(exit);

    public string? LimitCpu(CpuLimits limits, bool expected) => "it has ended";

    public IDisposable OnStateChanged(Action<VmState> handler) => new Nothing();

    public Task StartAsync(CancellationToken cancellation) => throw Over();

    public Task PauseAsync(CancellationToken cancellation) => throw Over();

    public Task ResumeAsync(CancellationToken cancellation) => throw Over();

    public Task PressPowerButtonAsync(CancellationToken cancellation) => throw Over();

    public Task SaveAsync(
        IReadOnlyList<(string Name, FileDescriptorHandle File)> files, ulong bytes, TimeSpan longest, CancellationToken cancellation) =>
            throw Over();

    public Task UndoSaveAsync(CancellationToken cancellation) => throw Over();

    public IWorkerMoves Moves => throw Over();

    public Task WakeAsync(CancellationToken cancellation) => throw Over();

    public Task StopAsync(CancellationToken cancellation) => Task.CompletedTask;

    public Task<WorkerStats> GetStatsAsync(CancellationToken cancellation) => throw Over();

    public Task<UnitList> UnitsAsync(CancellationToken cancellation) => throw Over();

    public Task LimitAsync(LimitsBody limits, CancellationToken cancellation) => throw Over();

    public Task<VmMemory> MemoryAsync(MemoryWish? wish, CancellationToken cancellation) => throw Over();

    public Task<WorkerNuma> NumaAsync(CancellationToken cancellation) => throw Over();

    public Task RehomeAsync(RehomeBody wish, CancellationToken cancellation) => throw Over();

    public Task CancelRehomeAsync(CancellationToken cancellation) => throw Over();

    public IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? PresentMemory() => null;

    public Task<DeviceList> DevicesAsync(CancellationToken cancellation) => throw Over();

    public Task<DeviceInfo> AddDiskAsync(DiskSpec disk, CancellationToken cancellation) => throw Over();

    public Task<DeviceInfo> AddNetAsync(NetSpec net, CancellationToken cancellation) => throw Over();

    public Task CopyDiskAsync(string device, DiskSpec disk, DiskCopyWish wish, CancellationToken cancellation) => throw Over();

    public Task StreamDiskAsync(string device, DiskStreamWish wish, CancellationToken cancellation) => throw Over();

    public Task CommitDiskAsync(string device, DiskSpec disk, ulong? bytesPerSecond, CancellationToken cancellation) => throw Over();

    public Task<DiskCopyInfo> DiskCopyAsync(CancellationToken cancellation) => throw Over();

    public Task SnapshotDisksAsync(
        IReadOnlyList<(string Device, DiskSpec Overlay)> disks, bool cut, CancellationToken cancellation) => throw Over();

    public Task LogChangesAsync(string device, FileDescriptorHandle log, CancellationToken cancellation) => throw Over();

    public Task StopLogAsync(string device, CancellationToken cancellation) => throw Over();

    public Task<bool> HasSnapshotAsync(IReadOnlyList<SnapshotDisk> disks, CancellationToken cancellation) => throw Over();

    public Task StepDiskCopyAsync(string device, DiskCopyStep step, CancellationToken cancellation) => throw Over();

    public Task<ulong> DiskSizeAsync(string device, CancellationToken cancellation) => throw Over();

    public Task<ulong> GrowDiskAsync(string device, DiskGrowth growth, CancellationToken cancellation) => throw Over();

    public Task<DeviceRemoval> RemoveDeviceAsync(string device, TimeSpan patience, bool force, CancellationToken cancellation) =>
        throw Over();

    public void OnDeviceRemoved(Action<RemovalBody> handler)
    {
    }

    public Task<Stream> OpenConsoleAsync(CancellationToken cancellation) => throw Over();

    public Task<Stream> OpenAgentAsync(byte[]? farewell, CancellationToken cancellation) => throw Over();

    public Task ResizeConsoleAsync(ConsoleSize size, CancellationToken cancellation) => throw Over();

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private static WorkerException Over() => new(ControlCodes.WrongState, "the VM is over");

    private sealed class Nothing : IDisposable
    {
        public void Dispose()
        {
        }
    }
}
