using Vmm.Contracts.Control;
using Vmm.Daemon.Saved;

namespace Vmm.Daemon.Inventory;

/// <summary>What the inventory keeps of one VM.</summary>
/// <param name="Id">UUID.</param>
/// <param name="Name">Unique.</param>
/// <param name="Spec">The YAML as it was given.</param>
/// <param name="Folder">What relative paths in the spec are relative to; empty when it has none.</param>
/// <param name="Revision">Grows with every change of the spec.</param>
/// <param name="WantedOn">True from a start that was asked for to a stop that was asked for, or the guest's own end.</param>
/// <param name="LastExit">How the last run ended.</param>
/// <param name="Saved">Where it is saved, or being saved; null when it is not.</param>
/// <param name="Copy">The disk that is being copied; null when none is.</param>
/// <param name="Snapshot">The snapshot that is being taken; null when none is.</param>
/// <param name="Commit">The disk that is being committed; null when none is.</param>
/// <param name="Seed">The seed of its first start; null when it never had one.</param>
/// <param name="Move">The move that goes on; null when none does.</param>
public sealed record VmRecord(
    string Id, string Name, string Spec, string Folder, long Revision, bool WantedOn, WorkerExit? LastExit, SavedPlace? Saved = null,
    DiskCopyRecord? Copy = null, SnapshotRecord? Snapshot = null, DiskCommitRecord? Commit = null,
    SeedRecord? Seed = null, MoveRecord? Move = null);
