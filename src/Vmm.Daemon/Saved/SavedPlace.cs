namespace Vmm.Daemon.Saved;

/// <summary>Where a VM is saved, or is being saved.</summary>
/// <param name="Folder">The folder, a whole path.</param>
/// <param name="IsWhole">False: it is being written, or was when vmmd ended.</param>
public sealed record SavedPlace(string Folder, bool IsWhole);
