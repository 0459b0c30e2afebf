using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Net;

namespace Vmm.Machine.Run;

/// <summary>Counters of a machine now.</summary>
/// <param name="Exits">KVM exits to user space, all vCPUs.</param>
/// <param name="Disks">Per disk, in guest order; they go on counting.</param>
/// <param name="Nets">Per network device, in guest order; they go on counting.</param>
public sealed record MachineCounters(long Exits, IReadOnlyList<BlkCounters> Disks, IReadOnlyList<NetCounters> Nets);
