namespace Vmm.Storage.Qcow2;

/// <summary>
/// The parts of a node, and the memory that allocations copy into. The node's thread only; grows to what was needed at once.
/// </summary>
internal sealed class PartPool(Qcow2Node node, int mostParts, int fillBytes, int mostFills) : IDisposable
{
    private readonly List<Part> _parts = [];
    private readonly Stack<Part> _free = new();
    private readonly Stack<FillBuffer> _freeFills = new();
    private int _inUse, _fills;

    /// <summary>Operations that wait for a part; for memory to copy into.</summary>
    internal OperationList PartWaiters, FillWaiters;

    /// <summary>Memory to copy into is at hand.</summary>
    internal bool CanCopy => _freeFills.Count > 0 || _fills < mostFills;

    /// <summary>The part of that token.</summary>
    internal Part this[int token] => _parts[token];

    /// <summary>
    /// A part for an operation; null when it has to wait. Readings of an allocation never wait: the allocation has a part itself.
    /// </summary>
    internal Part? TryTake(GuestOperation operation)
    {
        if (_inUse >= mostParts && operation.FillOf is null)
        {
            PartWaiters.Add(operation);
            return null;
        }

        _inUse++;
        if (!_free.TryPop(out Part? part))
        {
            part = new Part(node, _parts.Count);
            _parts.Add(part);
            node.Loop.Add(part.Request);
        }

        return part;
    }

    /// <summary>Takes a part back; the operation that may go on now, if any.</summary>
    internal GuestOperation? Return(Part part)
    {
        part.Operation = null;
        part.Slot = null;
        _free.Push(part);
        return --_inUse < mostParts ? PartWaiters.Take() : null;
    }

    /// <summary>Memory to copy into; <see cref="CanCopy"/> said that there is some.</summary>
    internal FillBuffer TakeFill()
    {
        if (_freeFills.TryPop(out FillBuffer? fill))
        {
            return fill;
        }

        _fills++;
        return new FillBuffer(fillBytes);
    }

    /// <summary>Takes memory back; the operation that may go on now, if any.</summary>
    internal GuestOperation? Return(FillBuffer fill)
    {
        _freeFills.Push(fill);
        return FillWaiters.Take();
    }

    /// <summary>Nothing is in use.</summary>
    public void Dispose()
    {
        foreach (Part part in _parts)
        {
            node.Loop.Remove(part.Request);
            part.Dispose();
        }

        foreach (FillBuffer fill in _freeFills)
        {
            fill.Dispose();
        }
    }
}
