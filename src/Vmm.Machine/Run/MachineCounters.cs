using Vmm.Devices.Virtio.Blk;

namespace Vmm.Machine.Run;

/// <summary>Counters of a machine now.</summary>
/// <param name="Exits">KVM exits to user space, all vCPUs.</param>
/// <param name="Disks">Per disk, in guest order; they go on counting.</param>
public sealed record MachineCounters(long Exits, IReadOnlyList<BlkCounters> Disks);
