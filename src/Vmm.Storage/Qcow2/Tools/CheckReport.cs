using System.Runtime.CompilerServices;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>What a check of an image found.</summary>
public sealed class CheckReport
{
    /// <summary>Findings that are kept; all are counted.</summary>
    public const int MostFindings = 1000;

    private readonly List<CheckFinding> _findings = [];

    /// <summary>Clusters that are lost to the file.</summary>
    public ulong Leaks { get; private set; }

    /// <summary>All other findings.</summary>
    public ulong Corruptions { get; private set; }

    /// <summary>The first <see cref="MostFindings"/>.</summary>
    public IReadOnlyList<CheckFinding> Findings => _findings;

    /// <summary>Bytes up to the last cluster that is used or counted.</summary>
    public ulong EndOffset { get; internal set; }

    /// <summary>Clusters of the disk, and those of them that have a cluster of the file, also compressed.</summary>
    public ulong TotalClusters { get; internal set; }

    /// <inheritdoc cref="TotalClusters"/>
    public ulong AllocatedClusters { get; internal set; }

    /// <summary>Those that are compressed.</summary>
    public ulong CompressedClusters { get; internal set; }

    /// <summary>The refcounts have to be written anew: their own structure lies.</summary>
    internal bool NeedsRebuild { get; private set; }

    /// <summary>Something else than refcounts and their flags is damaged: what looks like a leak may be what an entry meant.</summary>
    internal bool HasDamagedEntries { get; private set; }

    /// <summary>Nothing was found.</summary>
    public bool IsClean => Leaks == 0 && Corruptions == 0;

    /// <summary>As qemu-img check answers: 0 clean, 2 corruptions, 3 leaks only. (1 is a check that could not be made.)</summary>
    public int ExitCode => Corruptions > 0 ? 2 : Leaks > 0 ? 3 : 0;

    /// <summary>Texts of findings are still wanted.</summary>
    internal bool KeepsMore => _findings.Count < MostFindings;

    internal void Add(
        CheckFindingKind kind, ulong offset, [InterpolatedStringHandlerArgument("")] FindingText text, uint times = 1) =>
        Add(kind, offset, text.Take(), times);

    internal void Add(CheckFindingKind kind, ulong offset, string text, uint times = 1)
    {
        if (kind == CheckFindingKind.Leak)
        {
            Leaks += times;
        }
        else
        {
            Corruptions += times;
        }

        HasDamagedEntries |= kind is not (CheckFindingKind.Leak or CheckFindingKind.RefcountTooSmall or CheckFindingKind.CopiedFlag
            or CheckFindingKind.RefcountStructure or CheckFindingKind.RefcountOverflow);
        NeedsRebuild |= kind == CheckFindingKind.RefcountStructure;
        if (KeepsMore)
        {
            _findings.Add(new CheckFinding(kind, offset, text));
        }
    }
}
