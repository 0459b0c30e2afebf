using Vmm.Interop;

namespace Vmm.Storage;

/// <summary>
/// The ranges of one disk that writes in flight touch, over all of its queues. A read-modify-write of a block is exclusive: between its
/// read and its write no other write may change the block, or that one would be undone. Other writes share. Requests are granted in the
/// order of arrival as far as they conflict, so none starves and none waits in a circle. Thread-safe; the lock is held for the look at the
/// list only.
/// </summary>
internal sealed class WriteRanges
{
    private const int None = -1;

    private readonly Lock _gate = new();
    private Entry[] _entries = [];
    private int _last = None, _free = None, _reserved;
    private int _exclusive, _waiting; // entries of each kind: without any of them, and that is nearly always, no list is walked

    /// <summary>Makes room for the requests of one more queue.</summary>
    internal void Reserve(int depth)
    {
        lock (_gate)
        {
            _reserved += depth;
            int old = _entries.Length;
            if (_reserved > old)
            {
                Array.Resize(ref _entries, _reserved);
                for (int i = old; i < _entries.Length; i++)
                {
                    Recycle(i);
                }
            }
        }
    }

    /// <summary>Takes the room of a queue back. It has no request in flight.</summary>
    internal void Return(int depth)
    {
        lock (_gate)
        {
            _reserved -= depth;
        }
    }

    /// <summary>
    /// Registers a write of [begin, end); the ticket. When it is not granted now, <paramref name="granted"/> is signalled once it is.
    /// </summary>
    internal int Enter(ulong begin, ulong end, bool exclusive, EventFd granted, out bool now)
    {
        lock (_gate)
        {
            int ticket = _free;
            ref Entry entry = ref _entries[ticket];
            _free = entry.Next;
            (entry.Begin, entry.End, entry.Exclusive, entry.Next, entry.Previous) = (begin, end, exclusive, None, _last);
            if (!ReferenceEquals(entry.Wake, granted)) // most often it is: a reference costs more to store than to compare
            {
                entry.Wake = granted;
            }

            if (_last != None)
            {
                _entries[_last].Next = ticket;
            }

            _last = ticket;
            _exclusive += exclusive ? 1 : 0;
            now = entry.Granted = _exclusive == 0 || IsFree(ticket);
            _waiting += now ? 0 : 1;
            return ticket;
        }
    }

    /// <summary>True once the write may run.</summary>
    internal bool IsGranted(int ticket)
    {
        lock (_gate)
        {
            return _entries[ticket].Granted;
        }
    }

    /// <summary>The write is over. Those that waited for it may run.</summary>
    internal void Leave(int ticket)
    {
        lock (_gate)
        {
            ref Entry entry = ref _entries[ticket];
            int after = entry.Next;
            Unlink(ticket);
            _exclusive -= entry.Exclusive ? 1 : 0;
            for (int i = after; i != None && _waiting > 0; i = _entries[i].Next)
            {
                if (!_entries[i].Granted && IsFree(i))
                {
                    _entries[i].Granted = true;
                    _waiting--;
                    _entries[i].Wake!.Signal();
                }
            }

            Recycle(ticket);
        }
    }

    // No earlier entry conflicts.
    private bool IsFree(int ticket)
    {
        ref Entry own = ref _entries[ticket];
        for (int i = own.Previous; i != None; i = _entries[i].Previous)
        {
            ref Entry other = ref _entries[i];
            if ((own.Exclusive || other.Exclusive) && own.Begin < other.End && other.Begin < own.End)
            {
                return false;
            }
        }

        return true;
    }

    private void Unlink(int ticket)
    {
        ref Entry entry = ref _entries[ticket];
        if (entry.Previous != None)
        {
            _entries[entry.Previous].Next = entry.Next;
        }

        if (entry.Next == None)
        {
            _last = entry.Previous;
        }
        else
        {
            _entries[entry.Next].Previous = entry.Previous;
        }
    }

    private void Recycle(int ticket)
    {
        _entries[ticket].Next = _free;
        _free = ticket;
    }

    private struct Entry
    {
        public ulong Begin;
        public ulong End;
        public EventFd? Wake;
        public int Next;
        public int Previous;
        public bool Exclusive;
        public bool Granted;
    }
}
