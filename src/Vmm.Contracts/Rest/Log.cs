namespace Vmm.Contracts.Rest;

/// <summary>What the daemon logs.</summary>
/// <param name="Level">The least severe: <c>debug</c>, <c>information</c>, <c>warning</c> or <c>error</c>.</param>
public sealed record LogSettings(string Level);
