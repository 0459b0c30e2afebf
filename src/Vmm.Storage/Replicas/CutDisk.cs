namespace Vmm.Storage.Replicas;

/// <summary>A disk to be cut.</summary>
/// <param name="Name">Its name at both sites, such as <c>disk0</c>.</param>
/// <param name="Path">The file that has it as it was at the cut: the top of a chain that nothing writes any more.</param>
/// <param name="Format"><c>raw</c> or <c>qcow2</c>.</param>
/// <param name="Changed">Which extents may differ from the point before.</param>
public sealed record CutDisk(string Name, string Path, string Format, ExtentSet Changed);
