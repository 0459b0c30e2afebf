namespace Vmm.Io;

/// <summary>Operations that ended without the ring and wait to be delivered, in order. Belongs to the loop's thread.</summary>
internal sealed class ReadyList
{
    private IoOperation? _first, _last;

    /// <summary>True when something waits.</summary>
    internal bool Any => _first is not null;

    internal void Add(IoOperation operation, int result)
    {
        operation.ReadyResult = result;
        operation.NextReady = null;
        if (_last is { } last)
        {
            last.NextReady = operation;
        }
        else
        {
            _first = operation;
        }

        _last = operation;
    }

    /// <summary>
    /// Takes what is there now, linked by <see cref="IoOperation.NextReady"/>: what ends while that is delivered has its turn later, so
    /// that the ring has its own.
    /// </summary>
    internal IoOperation? TakeAll()
    {
        IoOperation? all = _first;
        _first = _last = null;
        return all;
    }
}
