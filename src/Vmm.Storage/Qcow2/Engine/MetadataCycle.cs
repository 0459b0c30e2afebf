namespace Vmm.Storage.Qcow2;

/// <summary>
/// Writes the changes of the top image's tables to the file in an order that needs no journal: payload is stable before an entry names it,
/// an L2 table before the L1 table names it. Refcounts were stable before all of them (<see cref="Reservation"/>). So a crash at any moment
/// leaves leaks at most. On the metadata's thread.
/// </summary>
internal sealed class MetadataCycle
{
    private const int SlotsPerRound = 128;

    private readonly ImageState _state;
    private readonly L2Cache _cache;
    private readonly ImageTables _tables;
    private readonly IImageFile _file;
    private readonly List<L2Slot> _taken = []; // slots of this cycle: they stay in memory until it is durable
    private readonly byte[] _copies = new byte[SlotsPerRound * L2Cache.SliceBytes];
    private readonly ulong[] _offsets = new ulong[SlotsPerRound];
    private int _count; // slots of the present round

    internal MetadataCycle(ImageState state, IImageFile file)
    {
        _state = state;
        _cache = state.Chain.Cache;
        ChainLayer top = state.Chain.Layers[0];
        (_tables, _file) = (top.Tables!, file);
    }

    /// <summary>Makes everything durable that was changed before now; whoever waited for that hears how it went.</summary>
    internal void Run()
    {
        OperationList waiters;
        long generation;
        List<(int Index, long Generation)> l1 = [];
        lock (_state)
        {
            (waiters, _state.FlushWaiters) = (_state.FlushWaiters, default);
            generation = _state.BeginCycle();
        }

        BlockException? failure = _state.LostFlush;
        try
        {
            while (failure is null && Capture(generation))
            {
                _file.Flush(); // the payload of all that was captured
                WriteRound();
            }

            if (failure is null)
            {
                TakeL1(generation, l1);
                WriteL1(l1);
                _file.Flush();
            }
        }
        catch (BlockException error)
        {
            failure = error;
        }

        End(generation, failure, l1, waiters);
    }

    // Copies changed slots, so that they may change on while they are written. False when none is left of this generation.
    private bool Capture(long generation)
    {
        _count = 0;
        lock (_state)
        {
            foreach (L2Slot slot in _cache.Slots)
            {
                if (_count < SlotsPerRound && slot.IsDirty && slot.DirtySince <= generation)
                {
                    slot.Bytes.CopyTo(_copies.AsSpan(_count * L2Cache.SliceBytes));
                    _offsets[_count++] = _tables.OffsetOf(slot.Key);
                    _cache.MarkCaptured(slot);
                    _taken.Add(slot);
                }
            }
        }

        return _count > 0;
    }

    private void WriteRound()
    {
        for (int i = 0; i < _count; i++)
        {
            _file.Write(_copies.AsSpan(i * L2Cache.SliceBytes, _tables.SliceBytes), _offsets[i]);
        }
    }

    private void TakeL1(long generation, List<(int Index, long Generation)> l1)
    {
        lock (_state)
        {
            l1.AddRange(_state.DirtyL1.Where(entry => entry.Generation <= generation));
            _state.DirtyL1.RemoveAll(entry => entry.Generation <= generation);
        }
    }

    private void WriteL1(List<(int Index, long Generation)> l1)
    {
        if (l1.Count > 0)
        {
            _file.Flush(); // the tables that are about to be named
        }

        foreach ((int index, _) in l1)
        {
            ulong entry, table;
            lock (_state)
            {
                (entry, table) = (_tables.L1[index], _state.Chain.Layers[0].Header!.L1Offset);
            }

            TableBytes.Write(_file, table + ((ulong)index * 8), [entry]);
        }
    }

    private void End(long generation, BlockException? failure, List<(int Index, long Generation)> l1, OperationList waiters)
    {
        lock (_state)
        {
            foreach (L2Slot slot in _taken)
            {
                slot.IsBeingWritten = false;
                if (failure is not null)
                {
                    _cache.MarkDirty(slot, generation); // all of it is written again: nobody knows what reached the file
                }
            }

            _taken.Clear();
            if (failure is null)
            {
                _state.Freed.BecameDurable(generation);
            }
            else
            {
                _state.DirtyL1.AddRange(l1);
            }

            waiters.Wake(failure);
            _state.SlotWaiters.Wake(failure);
            _state.IsCycling = false;
        }
    }
}
