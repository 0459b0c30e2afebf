namespace Vmm.Storage.Replicas;

/// <summary>How long points are kept. A point stays when one rule wants it.</summary>
/// <param name="All">All points that are not older than this.</param>
/// <param name="Hourly">The newest point of each of so many hours.</param>
/// <param name="Daily">The newest point of each of so many days.</param>
public sealed record KeepRules(TimeSpan All, int Hourly, int Daily);
