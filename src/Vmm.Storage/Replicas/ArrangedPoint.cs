namespace Vmm.Storage.Replicas;

/// <summary>A point at the recovery site: its images can be used.</summary>
/// <param name="Number">Its place in the order; never given to another point of the replica while that has newer ones.</param>
/// <param name="Point">What it is.</param>
public sealed record ArrangedPoint(int Number, SealedPoint Point);
