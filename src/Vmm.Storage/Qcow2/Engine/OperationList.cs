namespace Vmm.Storage.Qcow2;

/// <summary>Operations that wait for one thing, in their order. An operation is in one list at a time; nothing allocates.</summary>
internal struct OperationList
{
    private GuestOperation? _first, _last;

    internal readonly bool IsEmpty => _first is null;

    internal void Add(GuestOperation operation)
    {
        operation.NextWaiting = null;
        if (_last is { } last)
        {
            last.NextWaiting = operation;
        }
        else
        {
            _first = operation;
        }

        _last = operation;
    }

    /// <summary>Takes the one that has waited longest; null when there is none.</summary>
    internal GuestOperation? Take()
    {
        if (_first is not { } operation)
        {
            return null;
        }

        _first = operation.NextWaiting;
        _last = _first is null ? null : _last;
        operation.NextWaiting = null;
        return operation;
    }

    /// <summary>All of them go on, each on its own loop. Under the disk's lock.</summary>
    /// <param name="failure">What they waited for failed; null when it did not.</param>
    internal void Wake(BlockException? failure = null)
    {
        OperationList all = this; // one that goes on may wait here again
        this = default;
        while (all.Take() is { } operation)
        {
            if (failure is not null)
            {
                operation.Fail(failure.Status);
            }

            operation.Node.Wake(operation);
        }
    }
}
