using System.Globalization;

namespace Vmm.Contracts.Rest;

/// <summary>A VM is to go on on another host.</summary>
/// <param name="To">The other vmmd: <c>https://HOST:PORT</c>.</param>
/// <param name="MaxDowntimeMilliseconds">How long its guest may stand still; null is the daemon's choice.</param>
/// <param name="TimeoutSeconds">How long it may take until then; null is the daemon's choice.</param>
/// <param name="Force">When that time is over the guest is stopped for as long as it takes; otherwise the move is given up.</param>
public sealed record MigrateRequest(
    string To, int? MaxDowntimeMilliseconds = null, int? TimeoutSeconds = null, bool? Force = null);

/// <summary>A person says where a VM is, since the host that it was handed over to is lost.</summary>
/// <param name="Where"><c>here</c>, on the host that had it, or <c>there</c>.</param>
/// <param name="Confirm">The VM's name, typed: should the other host have taken it after all, two would run on the same disks.</param>
public sealed record SettleRequest(string Where, string Confirm)
{
    /// <summary>The VM is on the host that had it.</summary>
    public const string Here = "here";

    /// <summary>It is on the host that it was handed over to.</summary>
    public const string There = "there";
}

/// <summary>A file of a disk, as the host sees it that has the VM.</summary>
/// <param name="Path">The whole path, which is the same on both hosts.</param>
/// <param name="Bytes">Its size.</param>
/// <param name="Inode">Its number in its file system; null for a device.</param>
/// <param name="IsTop">The worker that has the VM holds a lock on it: who sees none looks at another file.</param>
public sealed record MigrationFile(string Path, ulong Bytes, ulong? Inode, bool IsTop)
{
    /// <summary>As an offer has it: <c>top</c> or <c>below</c>, the inode or <c>-</c>, the size, the path; a blank between each.</summary>
    public string ToText() => string.Create(
        CultureInfo.InvariantCulture, $"{(IsTop ? "top" : "below")} {(Inode is { } inode ? $"{inode}" : "-")} {Bytes} {Path}");

    /// <summary>From an offer; null: it is none.</summary>
    public static MigrationFile? Parse(string? text)
    {
        string[] parts = (text ?? "").Split(' ', 4);
        ulong inode = 0;
        return parts is ["top" or "below", { } number, { } size, ['/', ..]]
            && (number is "-" || ulong.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out inode))
            && ulong.TryParse(size, NumberStyles.None, CultureInfo.InvariantCulture, out ulong bytes)
            ? new MigrationFile(parts[3], bytes, number is "-" ? null : inode, parts[0] is "top")
            : null;
    }
}

/// <summary>One vmmd offers a VM to another one. Everything in it is a stranger's word.</summary>
/// <param name="Id">Names the move: 32 hexadecimal digits, never used twice.</param>
/// <param name="Vm">The VM's id: a UUID.</param>
/// <param name="Name">The VM's name.</param>
/// <param name="Spec">Its spec, as it was given.</param>
/// <param name="Folder">What relative paths in it are relative to; empty when it has none.</param>
/// <param name="Current">Its spec in JSON, with the devices that it has now.</param>
/// <param name="Files">The files of its disks, with the images below them: <see cref="MigrationFile.ToText"/>.</param>
/// <param name="Channels">How many streams its memory goes through.</param>
/// <param name="TimeoutSeconds">How long all of it may take, seconds.</param>
/// <param name="Cpu">The processor that its guest sees, as <c>vmmctl host cpu -o json</c> describes one; null: the sender does not
/// know.</param>
public sealed record MigrationOffer(
    string Id, string Vm, string Name, string Spec, string Folder, string Current, IReadOnlyList<string> Files,
    int Channels, int TimeoutSeconds, string? Cpu = null)
{
    /// <summary>The most files of a VM's disks.</summary>
    public const int MostFiles = 4096;
}

/// <summary>Where a move stands at the host that gets the VM.</summary>
public enum MigrationState
{
    /// <summary>The VM comes; it may be given up.</summary>
    Receiving,

    /// <summary>The VM is this host's, for good.</summary>
    Committed,

    /// <summary>Nothing came of it, for good: this host never runs the VM by this move.</summary>
    Aborted,
}

/// <summary>What the host says that gets a VM.</summary>
/// <param name="Id">The move.</param>
/// <param name="State">Where it stands.</param>
/// <param name="Problem">Why nothing comes of it; null: that is not known, or it may.</param>
public sealed record MigrationInfo(string Id, MigrationState State, string? Problem = null);
