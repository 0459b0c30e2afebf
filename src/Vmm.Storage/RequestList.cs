namespace Vmm.Storage;

/// <summary>Requests that wait, in their order. A request is in one list at a time; nothing allocates.</summary>
internal struct RequestList
{
    private BlockRequest? _first, _last;

    /// <summary>How many wait.</summary>
    internal int Count { get; private set; }

    /// <summary>Adds one behind the others.</summary>
    internal void Add(BlockRequest request)
    {
        request.NextWaiting = null;
        if (_last is { } last)
        {
            last.NextWaiting = request;
        }
        else
        {
            _first = request;
        }

        _last = request;
        Count++;
    }

    /// <summary>Adds one before the others.</summary>
    internal void AddFirst(BlockRequest request)
    {
        request.NextWaiting = _first;
        _first = request;
        _last ??= request;
        Count++;
    }

    /// <summary>Adds one where its <see cref="BlockRequest.Order"/> belongs.</summary>
    internal void AddInOrder(BlockRequest request)
    {
        BlockRequest? before = null, at = _first;
        while (at is not null && at.Order < request.Order)
        {
            (before, at) = (at, at.NextWaiting);
        }

        if (at is null)
        {
            Add(request);
            return;
        }

        request.NextWaiting = at;
        if (before is null)
        {
            _first = request;
        }
        else
        {
            before.NextWaiting = request;
        }

        Count++;
    }

    /// <summary>The one that has waited longest; null when there is none.</summary>
    internal readonly BlockRequest? First => _first;

    /// <summary>Takes the one that has waited longest; null when there is none.</summary>
    internal BlockRequest? Take()
    {
        if (_first is not { } request)
        {
            return null;
        }

        _first = request.NextWaiting;
        _last = _first is null ? null : _last;
        request.NextWaiting = null;
        Count--;
        return request;
    }
}
