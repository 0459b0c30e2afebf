using Vmm.Contracts.Rest;
using Vmm.Daemon.Guests;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Storage;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Vms;

/// <summary>Which differencing disks a snapshot makes, and over what.</summary>
internal static class SnapshotPlan
{
    private const int MostDisks = 64;

    /// <summary>The disks of a wish, with the files to make.</summary>
    /// <exception cref="ApiException">One cannot have a differencing disk, or the wish is none.</exception>
    internal static List<PlannedSnapshot> Of(
        string vm, SnapshotWish wish, IReadOnlyList<(string Name, DiskSpec Disk)> all, DateTimeOffset now)
    {
        string tag = wish.Name ?? now.UtcDateTime.ToString("yyyyMMdd-HHmmss", System.Globalization.CultureInfo.InvariantCulture);
        if (tag.Length is 0 or > 64 || tag[0] == '.'
            || !tag.All(letter => char.IsAsciiLetterOrDigit(letter) || letter is '.' or '_' or '-'))
        {
            throw Invalid($"name: {tag}, expected 1 to 64 letters, digits, . _ -, not beginning with a dot");
        }

        if (wish.To is { } to && to.Count != (wish.Disks?.Count ?? -1))
        {
            throw Invalid("to: expected one file for each of the disks, in their order");
        }

        List<PlannedSnapshot> disks = wish.Disks is null
            ? [.. all.Where(each => !each.Disk.ReadOnly).Select(each => new PlannedSnapshot(each.Name, each.Disk, Named(each.Disk, tag)))]
            : [.. wish.Disks.Select((name, i) => Wanted(vm, name, wish.To?[i], all, tag))];
        if (disks.Count is 0 or > MostDisks)
        {
            throw Invalid($"{vm} has {disks.Count} disks for a snapshot: expected 1 to {MostDisks}");
        }

        if (disks.Select(disk => disk.Name).Distinct(StringComparer.Ordinal).Count() < disks.Count)
        {
            throw Invalid("disks: one is named twice");
        }

        return disks.Select(disk => disk.Overlay).Distinct(StringComparer.Ordinal).Count() < disks.Count
            ? throw Invalid($"two differencing disks would have one name ({disks[0].Overlay}): say where each goes")
            : disks;
    }

    /// <summary>How long the guest may be frozen; null: it is not asked.</summary>
    /// <exception cref="ApiException">Not so long.</exception>
    internal static TimeSpan? QuiesceOf(SnapshotWish wish) => wish.QuiesceSeconds is { } seconds
        ? seconds >= 1 && seconds <= GuestFreeze.LongestLimit.TotalSeconds ? TimeSpan.FromSeconds(seconds)
            : throw Invalid($"quiesceSeconds: {seconds}, expected 1 to {GuestFreeze.LongestLimit.TotalSeconds}")
        : wish.QuiesceRequired ? GuestFreeze.DefaultLimit
        : null;

    /// <summary>What the differencing disk is like.</summary>
    /// <exception cref="ApiException">The disk cannot be read.</exception>
    internal static Qcow2CreateOptions OptionsOf(string vm, PlannedSnapshot disk, StorageFolders storage)
    {
        string from = disk.Disk.Path;
        DiskFacts facts = DiskFacts.Read(vm, disk.Name, disk.Disk, storage);
        bool isBeside = string.Equals(Path.GetDirectoryName(from), Path.GetDirectoryName(disk.Overlay), StringComparison.Ordinal);
        return Qcow2CreateOptions.Over(
            isBeside ? Path.GetFileName(from) : from, facts.Header is null ? ImageFormat.Raw : ImageFormat.Qcow2, facts.Bytes);
    }

    // disk.img and disk.OLD.qcow2 both become disk.TAG.qcow2.
    private static string Named(DiskSpec disk, string tag)
    {
        string stem = Path.GetFileNameWithoutExtension(disk.Path);
        stem = disk.Format == DiskFormat.Qcow2 && Path.GetFileNameWithoutExtension(stem) is { Length: > 0 } shorter ? shorter : stem;
        return Path.Combine(Path.GetDirectoryName(disk.Path) ?? "/", $"{stem}.{tag}.qcow2");
    }

    private static PlannedSnapshot Wanted(
        string vm, string name, string? to, IReadOnlyList<(string Name, DiskSpec Disk)> all, string tag)
    {
        DiskSpec? disk = all.FirstOrDefault(each => string.Equals(each.Name, name, StringComparison.Ordinal)).Disk;
        string? wrong = disk is null ? $"{vm} has no disk {name}; 'vmmctl vm devices {vm}' shows those it has"
            : disk.ReadOnly ? $"{name} is read only: it stays as it is without a snapshot"
            : to is not null && !Path.IsPathRooted(to) ? $"to: {to}, expected a whole path"
            : null;
        return wrong is not null
            ? throw (disk is null ? new ApiException(404, "device-not-found", "no such device", wrong) : Invalid(wrong))
            : new PlannedSnapshot(name, disk!, to is null ? Named(disk!, tag) : Path.GetFullPath(to, "/"));
    }

    private static ApiException Invalid(string what) => new(422, "snapshot-invalid", "the snapshot cannot be taken like that", what);
}

/// <summary>A disk that gets a differencing disk.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Disk">What it is.</param>
/// <param name="Overlay">The file to make.</param>
internal sealed record PlannedSnapshot(string Name, DiskSpec Disk, string Overlay)
{
    /// <summary>The disk as it is then.</summary>
    internal DiskSpec After => Disk with { Path = Overlay, Format = DiskFormat.Qcow2, Backing = null };

    /// <summary>For the inventory.</summary>
    internal SnapshotDiskRecord Record => new(Name, Disk.Path, Disk.Format == DiskFormat.Qcow2, Overlay);
}
