namespace Vmm.Storage.Replicas;

/// <summary>A disk of a point.</summary>
/// <param name="Name">Its name, such as <c>disk0</c>.</param>
/// <param name="Bytes">Bytes of the disk.</param>
/// <param name="Stored">Bytes of its sealed delta.</param>
/// <param name="Seal">The hash at the end of that, 64 hexadecimal digits.</param>
/// <param name="Root">The root of the disk's hash tree at the point, 64 hexadecimal digits.</param>
/// <param name="Why">Why the delta has all of the disk; null when it has what changed since the point before.</param>
public sealed record SealedDisk(string Name, ulong Bytes, ulong Stored, string Seal, string Root, string? Why = null);
