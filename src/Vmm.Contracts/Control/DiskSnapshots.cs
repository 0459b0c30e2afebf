namespace Vmm.Contracts.Control;

/// <summary>A differencing disk that is to become the top of a disk.</summary>
/// <param name="Device">Name of the disk in the running VM.</param>
/// <param name="Path">File of the differencing disk.</param>
public sealed record SnapshotDisk(string Device, string Path);

/// <summary>Differencing disks that become tops at one instant; their descriptors are those of disks with their numbers.</summary>
/// <param name="Disks">The disks.</param>
/// <param name="Cut">
/// True: what was written to them is pending from that instant on, in their change logs. Needs <see cref="ControlVersion.ChangeLogs"/>.
/// </param>
public sealed record SnapshotBody(IReadOnlyList<SnapshotDisk> Disks, bool? Cut = null);

/// <summary>A disk whose change log begins or ends.</summary>
/// <param name="Device">Name of the disk in the running VM.</param>
public sealed record LogBody(string Device);

/// <summary>Whether differencing disks became the tops.</summary>
/// <param name="Taken">All did; otherwise none.</param>
public sealed record SnapshotInfo(bool Taken);
