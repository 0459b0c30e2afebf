namespace Vmm.Storage.Replicas;

/// <summary>The files of a point become part of those of the next one.</summary>
/// <param name="From">The number of the point that goes.</param>
/// <param name="Into">The number of the next one, which stays.</param>
internal sealed record PointMerge(int From, int Into);
