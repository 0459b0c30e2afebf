namespace Vmm.Storage.Replicas;

/// <summary>What a cut is to be.</summary>
public sealed record CutWish
{
    /// <summary>The VM's id.</summary>
    public required Guid Owner { get; init; }

    /// <summary>The new point.</summary>
    public required Guid Point { get; init; }

    /// <summary>The point that was cut before; empty: each delta has all of its disk.</summary>
    public Guid Parent { get; init; }

    /// <summary>When the disks were as they are read.</summary>
    public required DateTimeOffset Time { get; init; }

    /// <summary>The primary's generation.</summary>
    public Guid Generation { get; init; }

    /// <summary>How freezing the guest's file systems went; null when it was not asked for.</summary>
    public string? Quiesced { get; init; }

    /// <summary>The VM is off.</summary>
    public bool IsLast { get; init; }

    /// <summary>The VM's spec as text.</summary>
    public string Spec { get; init; } = "";

    /// <summary>The firmware's variables as text; null when it has none.</summary>
    public string? Variables { get; init; }

    /// <summary>Why all of each disk is to be stored, as somebody asked for; null: what differs.</summary>
    public string? WhyFull { get; init; }

    /// <summary>Most bytes to read in a second; null is without a limit.</summary>
    public ulong? BytesPerSecond { get; init; }
}
