using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>What a cut is to be made of, and where to.</summary>
/// <param name="Spool">Where its point goes.</param>
/// <param name="Point">The new point.</param>
/// <param name="Parent">The point that was cut before; empty: there is none.</param>
/// <param name="Generation">The primary's generation.</param>
/// <param name="Disks">Names of the disks; null: all that can be written.</param>
/// <param name="QuiesceSeconds">How long the guest's file systems may be frozen; null: they are not.</param>
/// <param name="All">Why all of the disks has to be compared; null: what <paramref name="Changes"/> tells.</param>
/// <param name="Changes">Tells what was written.</param>
/// <param name="Variables">The firmware's variables, base64; null when it has none.</param>
/// <param name="Time">The clock.</param>
internal sealed record CutOrder(
    ReplicaSpool Spool, Guid Point, Guid Parent, Guid Generation, IReadOnlyList<string>? Disks, int? QuiesceSeconds, string? All,
    IChangeSource Changes, string? Variables, TimeProvider Time)
{
    /// <summary>As the cut wants it. The time is that before the instant: a point is never said to be younger than it is.</summary>
    /// <param name="vm">The VM's id.</param>
    /// <param name="spec">Its spec.</param>
    /// <param name="isLast">It is off.</param>
    internal CutWish WishOf(string vm, string spec, bool isLast) => new()
    {
        Owner = Guid.Parse(vm),
        Point = Point,
        Parent = Parent,
        Time = Time.GetUtcNow(),
        Generation = Generation,
        IsLast = isLast,
        Spec = spec,
        Variables = Variables,
    };
}
