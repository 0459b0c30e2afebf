using System.Text.Json;
using System.Text.Json.Serialization;

namespace Vmm.Contracts.Control;

/// <summary>How far the copy of a running VM's disk is.</summary>
public enum DiskCopyState
{
    /// <summary>There is no copy.</summary>
    None,

    /// <summary>The target gets what the disk has.</summary>
    Copying,

    /// <summary>The target has everything, and everything that is written goes to both.</summary>
    Mirrored,

    /// <summary>As before, while the daemon writes down which of the two is the disk.</summary>
    Sealed,
}

/// <summary>A step of a copy that goes on.</summary>
public enum DiskCopyStep
{
    /// <summary>The daemon is about to write down that the target is the disk.</summary>
    Seal,

    /// <summary>The target is the disk from now on.</summary>
    Finish,

    /// <summary>The disk stays where it was, and the target is let go of.</summary>
    Cancel,
}

/// <summary>A disk to copy, with the descriptors of the target.</summary>
/// <param name="Device">Name of the disk in the running VM.</param>
/// <param name="Disk">The disk as it shall be afterwards, as in the spec's JSON.</param>
/// <param name="BytesPerSecond">Most bytes to copy in a second; null is no limit.</param>
/// <param name="TopOnly">
/// Only what the disk's top image has itself: the target stands on the same images below. Needs <see cref="ControlVersion.ImageCopies"/>.
/// </param>
public sealed record CopyDiskBody(
    string Device,
    JsonElement Disk,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] ulong? BytesPerSecond = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)] bool TopOnly = false);

/// <summary>A disk to stream: its top image gets what it sees through images below it, and goes on without them.</summary>
/// <param name="Device">Name of the disk in the running VM.</param>
/// <param name="Base">The image on which it stands afterwards: its path, or the last part of that; null: none.</param>
/// <param name="BytesPerSecond">Most bytes to copy in a second; null is no limit.</param>
public sealed record StreamDiskBody(
    string Device,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Base = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] ulong? BytesPerSecond = null);

/// <summary>A disk to commit, with the descriptors of the image that gets its content.</summary>
/// <param name="Device">Name of the disk in the running VM.</param>
/// <param name="Base">The image, which is below the top: its whole path.</param>
/// <param name="BytesPerSecond">Most bytes to copy in a second; null is no limit.</param>
public sealed record CommitDiskBody(
    string Device,
    string Base,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] ulong? BytesPerSecond = null);

/// <summary>A step to take.</summary>
/// <param name="Device">Name of the disk that is copied.</param>
/// <param name="Step">The step.</param>
public sealed record CopyStepBody(string Device, DiskCopyStep Step);

/// <summary>How far a copy is.</summary>
/// <param name="State">Where it stands.</param>
/// <param name="Device">Name of the disk; null: there is no copy.</param>
/// <param name="CopiedBytes">Bytes of the disk that the target has.</param>
/// <param name="TotalBytes">Bytes of the disk.</param>
/// <param name="Problem">Why nothing will come of it; null as long as it goes well.</param>
/// <param name="NoSpace">The target's file system is full.</param>
public sealed record DiskCopyInfo(
    DiskCopyState State,
    string? Device = null,
    ulong CopiedBytes = 0,
    ulong TotalBytes = 0,
    string? Problem = null,
    bool NoSpace = false);
