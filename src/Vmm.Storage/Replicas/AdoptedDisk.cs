namespace Vmm.Storage.Replicas;

/// <summary>A disk that is there already, and becomes the oldest point of a replica.</summary>
/// <param name="Name">Its name, such as <c>disk0</c>.</param>
/// <param name="Path">Its file, the top of its chain. Nobody writes it as long as the replica is there.</param>
/// <param name="Format"><c>raw</c> or <c>qcow2</c>.</param>
public sealed record AdoptedDisk(string Name, string Path, string Format);
