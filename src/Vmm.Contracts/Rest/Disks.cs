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

/// <summary>Where the disk of a running VM is to be copied, to go on there.</summary>
/// <param name="To">
/// The file to make, a whole path in a storage folder of the host; or the URI of an NBD server's export that has the disk's size.
/// </param>
/// <param name="Cache"><c>direct</c> or <c>buffered</c>, how the copy is used; null: as the disk was.</param>
/// <param name="BytesPerSecond">Most bytes to copy in a second; null is no limit.</param>
/// <param name="Format"><c>raw</c> or <c>qcow2</c>; null: as the disk's file is, raw for a disk of a server.</param>
/// <param name="TopOnly">
/// The disk is a qcow2 image over others: only what that image has itself is copied, and the new one stands on the same images below.
/// </param>
public sealed record DiskCopyWish(
    string To, string? Cache = null, ulong? BytesPerSecond = null, string? Format = null, bool TopOnly = false);

/// <summary>How the disk of a running VM is to be streamed: its top image gets what it sees through images below it.</summary>
/// <param name="Base">The image on which it stands afterwards: its path, or the last part of that; null: none.</param>
/// <param name="BytesPerSecond">Most bytes to copy in a second; null is no limit.</param>
public sealed record DiskStreamWish(string? Base = null, ulong? BytesPerSecond = null);

/// <summary>How the disk of a running VM is to be committed into an image of its chain, to go on there.</summary>
/// <param name="Base">The image that gets the content: its path, or the last part of that; null: the one right below the top.</param>
/// <param name="Delete">The files of the images above it, which are needed no more, are removed then.</param>
/// <param name="BytesPerSecond">Most bytes to copy in a second; null is no limit.</param>
public sealed record DiskCommitWish(string? Base = null, bool Delete = false, ulong? BytesPerSecond = null);

/// <summary>A wish for the size of a VM's disk.</summary>
/// <param name="SizeBytes">The size to grow to, bytes, a multiple of 4096; null: only look how large it is.</param>
public sealed record DiskSizeWish(long? SizeBytes = null);
