namespace Vmm.Storage.Replicas;

/// <summary>
/// A point of a VM's disks as it goes from the primary to the recovery site: what <c>point.json</c> says. At both sites it is there only
/// when all its disks are.
/// </summary>
public sealed record SealedPoint
{
    /// <summary>Version of the format; 1.</summary>
    public int Format { get; init; } = 1;

    /// <summary>The point.</summary>
    public required Guid Id { get; init; }

    /// <summary>The point before it; empty when each delta has all of its disk.</summary>
    public Guid Parent { get; init; }

    /// <summary>Whose disks they are: the VM's id.</summary>
    public required Guid Owner { get; init; }

    /// <summary>The generation of the primary when it was cut; not looked at here.</summary>
    public Guid Generation { get; init; }

    /// <summary>When the disks were as they are in it.</summary>
    public required DateTimeOffset Time { get; init; }

    /// <summary>Whether the guest's file systems were frozen, and how that went; null when it was not asked for.</summary>
    public string? Quiesced { get; init; }

    /// <summary>It was cut after the VM was off.</summary>
    public bool IsLast { get; init; }

    /// <summary>The VM's spec as text; not looked at here.</summary>
    public string Spec { get; init; } = "";

    /// <summary>The firmware's variables as text; not looked at here.</summary>
    public string? Variables { get; init; }

    /// <summary>The disks.</summary>
    public required IReadOnlyList<SealedDisk> Disks { get; init; }

    /// <summary>Bytes of all deltas.</summary>
    internal ulong Stored => Disks.Aggregate(0ul, (sum, disk) => sum + disk.Stored);

    /// <summary>The disk with a name; null without one.</summary>
    public SealedDisk? Find(string disk) => Disks.FirstOrDefault(each => string.Equals(each.Name, disk, StringComparison.Ordinal));
}
