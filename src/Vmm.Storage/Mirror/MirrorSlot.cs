namespace Vmm.Storage;

/// <summary>Where a request that changes the disk is on its way through a <see cref="MirrorNode"/>.</summary>
internal enum MirrorStep : byte
{
    /// <summary>There is no request.</summary>
    Free,

    /// <summary>Another writer, or the copier, is at its range.</summary>
    WaitsForRange,

    /// <summary>All bounce buffers are in use.</summary>
    WaitsForBuffer,

    /// <summary>The source alone works on it, all at once.</summary>
    AtSource,

    /// <summary>A piece goes to source and target.</summary>
    AtBoth,

    /// <summary>The source failed a piece: what it has there now is read, to be the target's, too.</summary>
    Rereading,

    /// <summary>What was read goes to the target.</summary>
    Repeating,

    /// <summary>It is over at the source and did not reach the target: whether that matters is being decided.</summary>
    Undecided,
}

/// <summary>One request that changes the disk, or a flush, on its way through a <see cref="MirrorNode"/>.</summary>
internal sealed class MirrorSlot(IBlockOwner node, int index)
{
    /// <summary>Its number in the node.</summary>
    internal int Index => index;

    /// <summary>The request of whoever is above.</summary>
    internal BlockRequest? Request;

    /// <summary>What the source is asked for it.</summary>
    internal readonly BlockRequest Source = new(node, index);

    /// <summary>What the target is asked for it.</summary>
    internal readonly BlockRequest Target = new(node, index);

    /// <summary>Where it is.</summary>
    internal MirrorStep Step;

    /// <summary>How far it is: offset, rest and vectors are used.</summary>
    internal RawProgress Progress;

    /// <summary>Its entry in <see cref="WriteRanges"/>; -1 is none.</summary>
    internal int Ticket = -1;

    /// <summary>Its bounce buffer; -1 is none.</summary>
    internal int Buffer = -1;

    /// <summary>Bytes of the piece that goes on.</summary>
    internal uint Piece;

    /// <summary>Requests of the piece that have not ended.</summary>
    internal int Asked;

    /// <summary>The target has all of it so far.</summary>
    internal bool OnTarget;

    /// <summary>How the source ended the piece, and in the end the request.</summary>
    internal DiskStatus SourceStatus;

    /// <summary>How the target ended the piece.</summary>
    internal DiskStatus TargetStatus;
}
