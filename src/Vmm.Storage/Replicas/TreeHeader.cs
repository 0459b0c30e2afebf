namespace Vmm.Storage.Replicas;

/// <summary>The header of a tree file.</summary>
/// <param name="DiskBytes">Bytes of the disk.</param>
/// <param name="Point">The point whose hashes it has.</param>
/// <param name="Pending">The point that it is being brought to; empty: none, and the file is sound.</param>
/// <param name="Root">The root of the tree at <paramref name="Point"/>.</param>
internal readonly record struct TreeHeader(ulong DiskBytes, Guid Point, Guid Pending, byte[] Root);
