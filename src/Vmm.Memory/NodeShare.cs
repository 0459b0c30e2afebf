namespace Vmm.Memory;

/// <summary>A part of a vnode's memory and the host node it is to come from.</summary>
/// <param name="Node">Number of the host node.</param>
/// <param name="Bytes">How much, a multiple of the page size.</param>
public sealed record NodeShare(int Node, ByteSize Bytes);
