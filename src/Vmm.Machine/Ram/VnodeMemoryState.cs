using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>Memory of one vnode now.</summary>
/// <param name="Vnode">Its number.</param>
/// <param name="Least">What it cannot go below without a balloon.</param>
/// <param name="Most">What it cannot go beyond.</param>
/// <param name="Asked">What the guest was asked to have.</param>
/// <param name="Present">What the guest has.</param>
/// <param name="Driven">A driver of the guest serves the wish; false while it has not come up, or has none.</param>
public readonly record struct VnodeMemoryState(int Vnode, ByteSize Least, ByteSize Most, ByteSize Asked, ByteSize Present, bool Driven)
{
    /// <summary>It grows and shrinks by multiples of this.</summary>
    public ByteSize Block { get; init; }

    /// <summary>How far the balloon is asked to bring it below <see cref="Least"/>: part of <see cref="Asked"/>.</summary>
    public ByteSize Below { get; init; }

    /// <summary>Of what it is to give back: what the guest has not been asked for yet, because too little would be left for it.</summary>
    public ByteSize HeldBack { get; init; }
}

/// <summary>A vnode cannot have the memory that was asked for, whatever the guest does.</summary>
public sealed class VnodeMemoryException : Exception
{
    /// <summary>Creates the error.</summary>
    public VnodeMemoryException(string message) : base(message) { }
}
