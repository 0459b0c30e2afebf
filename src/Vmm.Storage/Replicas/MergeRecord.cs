namespace Vmm.Storage.Replicas;

/// <summary>
/// What <c>merge.json</c> says: points that are none any more, since their files are being merged into those of the next one.
/// </summary>
/// <param name="Merges">The merges, none of which touches a file of another one.</param>
internal sealed record MergeRecord(IReadOnlyList<PointMerge> Merges);
