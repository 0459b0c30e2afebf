using System.Text.Json.Serialization;
using Vmm.LifeCycle;

namespace Vmm.Contracts.Control;

/// <summary>
/// Version and abilities of the control protocol. A VM runs for months under daemons of later releases, so both directions hold:
/// <list type="bullet">
/// <item>A receiver ignores members that it does not know, in every body and in specs. It answers a kind that it does not know with
/// <see cref="ControlCodes.UnknownKind"/>, and ignores an event that it does not know.</item>
/// <item>A sender adds a member only as an optional one that is left out when it is null: the protocol before version 3 refused unknown
/// members. What the receiver must not ignore needs a feature, which the sender looks up in <see cref="ControlPeer"/> first.</item>
/// <item>No member, kind, enum value or code is removed or renamed.</item>
/// </list>
/// </summary>
public static class ControlVersion
{
    /// <summary>Feature: requests in several frames, <see cref="ControlFrame.MoreDescriptors"/>.</summary>
    public const string ManyDescriptors = "many-descriptors";

    /// <summary>Feature: <see cref="ControlKinds.Save"/>, and to create a VM from saved files.</summary>
    public const string Saving = "saving";

    /// <summary>Feature: disks that are images of a format, with the images below them. Others took the file for the disk.</summary>
    public const string Images = "images";

    /// <summary>Feature: <see cref="ControlKinds.RefreshDisk"/>.</summary>
    public const string DiskGrowth = "disk-growth";

    /// <summary>Feature: <see cref="ControlKinds.CopyDisk"/>.</summary>
    public const string DiskCopies = "disk-copies";

    /// <summary>Feature: <see cref="CopyDiskBody.TopOnly"/>, and copies from and to images and servers, with their maps.</summary>
    public const string ImageCopies = "image-copies";

    /// <summary>Feature: <see cref="ControlKinds.SnapshotDisks"/>.</summary>
    public const string DiskSnapshots = "disk-snapshots";
    /// <summary>Feature: disks of NBD servers, by a connected socket, and <see cref="ControlKinds.StorageDial"/>.</summary>
    public const string NbdDisks = "nbd-disks";

    /// <summary>Feature: disks that are images of a Ceph cluster, by a connected socket.</summary>
    public const string RbdDisks = "rbd-disks";

    /// <summary>Feature: network devices over a connected socket, and on bridges.</summary>
    public const string UserNets = "user-nets";

    /// <summary>Feature: shared folders, by a connected socket to the program of each.</summary>
    public const string Shares = "shares";

    /// <summary>Feature: a size in a <see cref="RefreshDiskBody"/>.</summary>
    public const string ImageGrowth = "image-growth";

    /// <summary>Feature: <see cref="ControlKinds.StreamDisk"/>.</summary>
    public const string DiskStreams = "disk-streams";

    /// <summary>Feature: <see cref="ControlKinds.CommitDisk"/>.</summary>
    public const string DiskCommits = "disk-commits";

    /// <summary>Feature: VMs with a resident limit, and <see cref="MemoryWish.ResidentBytes"/>.</summary>
    public const string Paging = "paging";

    /// <summary>Feature: <see cref="CreateBody.Lazily"/>.</summary>
    public const string LazyRestore = "lazy-restore";

    /// <summary>Feature: <see cref="ControlKinds.Move"/> and <see cref="ControlKinds.Receive"/>.</summary>
    public const string Moves = "moves";

    /// <summary>Feature: <see cref="MoveBody.PassMemory"/> and <see cref="ReceiveBody.MayPass"/>.</summary>
    public const string MemoryPassing = "memory-passing";

    /// <summary>Feature: <see cref="ControlKinds.LogDisk"/>, and <see cref="SnapshotBody.Cut"/>.</summary>
    public const string ChangeLogs = "change-logs";

    /// <summary>
    /// What this release speaks. 1 had no version in hello; 2 refuses unknown members of bodies and specs; 3 ignores them. It counts up
    /// when a change cannot be told by a feature.
    /// </summary>
    public const int Current = 3;

    /// <summary>What this release can beyond its version.</summary>
    public static IReadOnlyList<string> Features { get; } =
    [
        ManyDescriptors, Saving, DiskGrowth, Images, DiskCopies, ImageGrowth, NbdDisks, RbdDisks, DiskStreams, DiskSnapshots, DiskCommits,
        ImageCopies, UserNets, Shares, Paging, LazyRestore, Moves, MemoryPassing, ChangeLogs,
    ];
}

/// <summary>What the other end of a control connection speaks, from its hello.</summary>
/// <param name="version">Its version.</param>
/// <param name="features">Its features; those that this release does not know are kept, and mean nothing.</param>
public sealed class ControlPeer(int version, IEnumerable<string> features)
{
    private readonly HashSet<string> _features = new(features, StringComparer.Ordinal);

    /// <summary>Its version; 1 when it did not say.</summary>
    public int Version { get; } = version;

    /// <summary>The worker that sent a hello.</summary>
    public static ControlPeer Of(HelloBody hello) => new(hello.Version ?? 1, hello.Features ?? []);

    /// <summary>The daemon that sent a hello; null is one of version 1, which sent no body.</summary>
    public static ControlPeer Of(HelloRequest? hello) =>
        hello is null ? new ControlPeer(1, []) : new ControlPeer(hello.Version, hello.Features);

    /// <summary>Whether it has a feature of <see cref="ControlVersion"/>.</summary>
    public bool Can(string feature) => _features.Contains(feature);
}

/// <summary>Who asks.</summary>
/// <param name="Version">Version of the protocol it speaks.</param>
/// <param name="Features">What it can beyond its version.</param>
public sealed record HelloRequest(int Version, IReadOnlyList<string> Features);

/// <summary>Who a worker is.</summary>
/// <param name="VmId">Null as long as it has no VM.</param>
/// <param name="State">Where its VM stands.</param>
/// <param name="Confinement">What keeps it in bounds; empty as long as it has no VM.</param>
/// <param name="Version">Version of the protocol it speaks; null is 1, which did not say.</param>
/// <param name="Features">What it can beyond its version, <see cref="ControlVersion.Features"/>.</param>
public sealed record HelloBody(
    string? VmId,
    [property: JsonConverter(typeof(ControlStateConverter))] VmState State,
    ConfinementBody Confinement,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] int? Version = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyList<string>? Features = null);
