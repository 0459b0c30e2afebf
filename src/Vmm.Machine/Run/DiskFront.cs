using Vmm.Devices.Virtio.Blk;
using Vmm.Spec;

namespace Vmm.Machine.Run;

/// <summary>How a disk of a spec is shown to the guest.</summary>
internal static class DiskFront
{
    /// <summary>
    /// The options of the device. Each queue has a thread of its own, as far as there are vCPUs: a guest uses no more queues than it has of
    /// those.
    /// </summary>
    internal static VirtioBlkOptions Options(string name, DiskSpec disk, int cpus) => new()
    {
        Name = name,
        Serial = disk.Serial ?? "vmm-" + name,
        QueueCount = disk.Queues,
        QueueSize = disk.QueueSize,
        Waits = Waits(disk.OnError ?? new OnErrorSpec()),
        LogicalBlockSize = disk.LogicalBlockSize,
        IoThreads = Math.Clamp(cpus, 1, disk.Queues),
    };

    private static DiskWaits Waits(OnErrorSpec wish) =>
        (wish.NoSpace == FaultPolicy.Pause ? DiskWaits.NoSpace : DiskWaits.None)
        | (wish.Io == FaultPolicy.Pause ? DiskWaits.IoError : DiskWaits.None);
}
