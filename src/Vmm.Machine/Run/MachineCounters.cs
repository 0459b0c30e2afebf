using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Net;

namespace Vmm.Machine.Run;

/// <summary>Counters of a machine now.</summary>
/// <param name="Exits">KVM exits to user space, all vCPUs.</param>
/// <param name="Disks">Per disk that is plugged, in the order they came.</param>
/// <param name="Nets">Per network device that is plugged, in the order they came.</param>
/// <param name="Shares">Each shared folder, in guest order.</param>
public sealed record MachineCounters(
    long Exits, IReadOnlyList<DiskCounters> Disks, IReadOnlyList<NetDeviceCounters> Nets, IReadOnlyList<ShareCounters> Shares);

/// <summary>Counters of a shared folder.</summary>
/// <param name="Name"><c>fs0</c>, …</param>
/// <param name="Requests">Requests that virtiofsd completed.</param>
/// <param name="Losses">How often virtiofsd was lost.</param>
/// <param name="IsConnected">One serves it now.</param>
public sealed record ShareCounters(string Name, long Requests, long Losses, bool IsConnected);

/// <summary>Counters of a disk; they go on counting.</summary>
/// <param name="Name"><c>disk0</c>, …</param>
/// <param name="Counters">What it did.</param>
public sealed record DiskCounters(string Name, BlkCounters Counters);

/// <summary>Counters of a network device; they go on counting.</summary>
/// <param name="Name"><c>net0</c>, …</param>
/// <param name="Counters">What it did.</param>
/// <param name="KernelTap">The tap whose frames the host's kernel moves, uncounted here; null: the device moves them.</param>
public sealed record NetDeviceCounters(string Name, NetCounters Counters, string? KernelTap);
