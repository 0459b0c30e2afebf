namespace Vmm.Storage.Qcow2;

/// <summary>
/// A request on its way over a chain of images, or the reading of what an allocation has to copy. It goes through its range in order; its
/// parts are in flight together. Belongs to its node's thread, but for its place in a list of waiting ones, which the disk's lock guards.
/// </summary>
internal sealed class GuestOperation(Qcow2Node node)
{
    /// <summary>The node that serves it.</summary>
    internal Qcow2Node Node { get; } = node;

    /// <summary>The request; null for the reading of an allocation.</summary>
    internal BlockRequest? Request { get; private set; }

    /// <summary>The allocation that waits for this reading; null for a request.</summary>
    internal Part? FillOf { get; private set; }

    /// <summary>Which images it is about, when not all.</summary>
    internal LayerScope Scope { get; set; }

    /// <summary>What it does.</summary>
    internal BlockKind Kind { get; private set; }

    /// <summary>How it is to be done.</summary>
    internal BlockFlags Flags { get; private set; }

    /// <summary>The first byte of the disk for which nothing was begun yet.</summary>
    internal ulong Position { get; set; }

    /// <summary>The first byte behind its range.</summary>
    internal ulong End { get; private set; }

    /// <summary>Where the memory of <see cref="Position"/> is.</summary>
    internal VectorCursor Memory;

    /// <summary>The worst that happened to it.</summary>
    internal DiskStatus Status { get; set; }

    /// <summary>Parts in flight.</summary>
    internal int Parts { get; set; }

    /// <summary>Everything was begun.</summary>
    internal bool IsAllBegun { get; set; }

    /// <summary>It waits for the cycle of the metadata that makes it durable.</summary>
    internal bool IsFlushing { get; set; }

    /// <summary>Of a flush: the number of writes of its node that had ended when it began.</summary>
    internal long Covers { get; set; }

    /// <summary>What it wrote is stable.</summary>
    internal bool IsDurable { get; set; }

    /// <summary>It began to look at tables, and holds a period up.</summary>
    internal bool HasEntered { get; set; }

    /// <summary>The period in which it began to look at tables.</summary>
    internal int Period { get; set; }

    /// <summary>The operation behind this one in the one list in which it waits.</summary>
    internal GuestOperation? NextWaiting { get; set; }

    /// <summary>Begins with a request.</summary>
    internal void Begin(BlockRequest request)
    {
        Begin(request.Kind, request.Flags, request.Offset, request.Length);
        Request = request;
        FillOf = null;
        Memory = new VectorCursor(request.VectorAddress, request.VectorCount);
    }

    /// <summary>Begins with the reading of a range that an allocation copies, into memory of one vector.</summary>
    internal void Begin(Part fillOf, ulong offset, ulong length, nint vector)
    {
        Begin(BlockKind.Read, BlockFlags.None, offset, length);
        Request = null;
        FillOf = fillOf;
        Memory = new VectorCursor(vector, 1);
    }

    /// <summary>Something of it failed: nothing more is begun.</summary>
    internal void Fail(DiskStatus status) => Status = Status == DiskStatus.Ok ? status : Status;

    private void Begin(BlockKind kind, BlockFlags flags, ulong offset, ulong length)
    {
        (Kind, Flags, Position, End, Scope) = (kind, flags, offset, offset + length, default);
        (Status, Parts, IsAllBegun, IsFlushing, IsDurable, HasEntered) = (DiskStatus.Ok, 0, false, false, false, false);
    }
}

/// <summary>What an operation of a job is about; the default is a guest's request.</summary>
/// <param name="From">It reads, or asks where bytes are, as if the chain began with this image.</param>
/// <param name="Bound">Not 0: it brings up into the top what images from the second one to before this one have.</param>
/// <param name="Maps">It only asks where its first bytes are.</param>
internal readonly record struct LayerScope(int From = 0, int Bound = 0, bool Maps = false);
