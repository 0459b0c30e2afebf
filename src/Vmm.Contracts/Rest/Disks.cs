namespace Vmm.Contracts.Rest;

/// <summary>A wish for a disk in the daemon's folder of disks.</summary>
/// <param name="Name">File name: 1 to 128 letters, digits, <c>. _ -</c>, not beginning with a dot.</param>
/// <param name="SizeBytes">Size the guest sees, bytes, a multiple of 512.</param>
/// <param name="Format">Only <c>raw</c>.</param>
/// <param name="Preallocate">Take the space now; otherwise the file is sparse.</param>
public sealed record DiskRequest(string Name, long SizeBytes, string Format = "raw", bool Preallocate = false);

/// <summary>A disk in the daemon's folder of disks.</summary>
/// <param name="Name">File name.</param>
/// <param name="Path">Whole path, for the <c>path</c> of a disk in a spec.</param>
/// <param name="SizeBytes">Size the guest sees, bytes.</param>
/// <param name="UsedBy">VMs whose spec names it.</param>
public sealed record DiskInfo(string Name, string Path, long SizeBytes, IReadOnlyList<string> UsedBy);

/// <summary>Disks, by name.</summary>
/// <param name="Disks">The disks.</param>
public sealed record DiskList(IReadOnlyList<DiskInfo> Disks);
