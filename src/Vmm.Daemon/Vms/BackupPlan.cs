using System.Text.RegularExpressions;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Storage;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Backup;
using Vmm.Storage.Qcow2;

namespace Vmm.Daemon.Vms;

/// <summary>What a backup reads, and how its overlays are told from others.</summary>
internal static partial class BackupPlan
{
    /// <summary>The tag of the overlays in which a VM goes on while its disks are read.</summary>
    internal static string NewTag() => "vmm-backup-" + Guid.NewGuid().ToString("N")[..8];

    /// <summary>The tag of those of a cut for a replica.</summary>
    internal static string NewReplicaTag() => "vmm-replica-" + Guid.NewGuid().ToString("N")[..8];

    /// <summary>True for a file that a backup or a cut made as an overlay, one that was cut off, say.</summary>
    internal static bool IsOverlay(string path) => OverlayName().IsMatch(Path.GetFileName(path));

    /// <summary>Looks at what needs no VM.</summary>
    /// <exception cref="ApiException">The wish is none.</exception>
    internal static void Check(BackupRequest wish)
    {
        string? wrong = wish.BytesPerSecond is 0 ? "bytesPerSecond: 0, expected more, or none"
            : !Path.IsPathRooted(wish.Folder) ? $"folder: {wish.Folder}, expected a whole path"
            : null;
        if (wrong is not null)
        {
            throw Invalid(wrong);
        }
    }

    /// <summary>The disks of a wish.</summary>
    /// <exception cref="ApiException">One cannot be backed up, or there are none.</exception>
    internal static List<(string Name, DiskSpec Disk)> Of(
        string vm, BackupRequest wish, IReadOnlyList<(string Name, DiskSpec Disk)> all)
    {
        List<(string Name, DiskSpec Disk)> disks = [];
        foreach (string name in wish.Disks ?? [.. all.Where(each => !each.Disk.ReadOnly).Select(each => each.Name)])
        {
            DiskSpec? disk = all.FirstOrDefault(each => string.Equals(each.Name, name, StringComparison.Ordinal)).Disk;
            string? wrong = disk is null ? $"{vm} has no disk {name}; 'vmmctl vm devices {vm}' shows those it has"
                : disk.ReadOnly ? $"{name} is read only: its file stays as it is, copy that"
                : disk.IsRemote ? $"{name} is on a server, which has to back it up; name the others with --disk"
                : disks.Exists(each => string.Equals(each.Name, name, StringComparison.Ordinal)) ? $"disks: {name} is named twice"
                : null;
            if (wrong is not null)
            {
                throw disk is null ? new ApiException(404, "device-not-found", "no such device", wrong) : Invalid(wrong);
            }

            disks.Add((name, disk!));
        }

        return disks.Count > 0 ? disks : throw Invalid($"{vm} has no disks that can be written");
    }

    /// <summary>A disk as its backup reads it.</summary>
    internal static BackupSource SourceOf(string name, DiskSpec disk) =>
        new(name, disk.Path, disk.Format == DiskFormat.Qcow2 ? "qcow2" : "raw");

    /// <summary>
    /// The first image below an overlay that no backup or cut made: what it and those that were left are merged into.
    /// </summary>
    /// <exception cref="BlockException">An image is damaged.</exception>
    /// <exception cref="StorageException">A file is not where disks may be.</exception>
    internal static string? BaseOf(string overlay, StorageFolders storage)
    {
        List<string> below = [];
        DiskImageChain.FindImages(overlay, (path, _) => storage.Open(path, writable: false), (path, _) => below.Add(path));
        return below.Find(path => !IsOverlay(path));
    }

    /// <summary>What becomes of an error of the backup itself.</summary>
    internal static ApiException ToApi(string vm, string what, Exception cause) => cause is BlockException { Status: DiskStatus.NoSpace }
        ? new ApiException(507, "no-space", "there is no room for the backup", $"{vm}: {what}", inner: cause)
        : new ApiException(422, "backup-refused", "the backup cannot be made", $"{vm}: {what}", inner: cause);

    private static ApiException Invalid(string what) => new(422, "backup-invalid", "the backup cannot be made like that", what);

    [GeneratedRegex(@"\.vmm-(?:backup|replica)-[0-9a-f]{8}\.qcow2$", RegexOptions.CultureInvariant)]
    private static partial Regex OverlayName();
}
