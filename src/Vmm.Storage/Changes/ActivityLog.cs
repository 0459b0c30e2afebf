using Vmm.Interop;

namespace Vmm.Storage.Changes;

/// <summary>
/// The hot areas of a disk: those for whose writes nothing has to reach stable storage, since after a power cut they are taken for written
/// whole. An area gets a slot, and is hot when the sync is over that began behind that. A slot that is to get another area is cooled first:
/// nobody passes by it any more, and the next sync makes stable what was marked until then. Only behind that sync the slot is another's.
/// <see cref="IsHot"/> is for any thread; the rest is under the lock of the <see cref="ChangeLog"/>.
/// </summary>
internal sealed class ActivityLog : IDisposable
{
    // Slots that are ready for the next areas: a queue of requests finds some without a second sync.
    private const int Reserve = 64;

    private enum SlotState : byte
    {
        Free,
        Assigned, // in the file; a sync makes that stable
        Hot,
        Cooling, // nobody passes any more; a sync makes its bits stable
        Cold, // stable: the slot may be another's
    }

    private readonly NativeArray<ushort> _slotOf; // of each area, plus one; 0: not hot. The kernel gives what is touched
    private readonly SlotState[] _states = new SlotState[ChangeLogLayout.Slots];
    private readonly uint[] _areas = new uint[ChangeLogLayout.Slots];
    private readonly byte[] _used = new byte[ChangeLogLayout.Slots]; // since the hand passed
    private readonly Dictionary<uint, int> _known = new(ChangeLogLayout.Slots); // slots of areas that are not free
    private readonly Stack<int> _free = new(ChangeLogLayout.Slots);
    private readonly List<int> _assigned = new(ChangeLogLayout.Slots), _cooling = new(ChangeLogLayout.Slots);
    private int _hand, _coldHand, _coldCount;

    /// <param name="areas">Most areas that the disk will have. What is not touched costs addresses only.</param>
    internal ActivityLog(int areas)
    {
        _slotOf = new NativeArray<ushort>(areas);
        for (int slot = ChangeLogLayout.Slots - 1; slot >= 0; slot--)
        {
            _free.Push(slot);
        }
    }

    /// <summary>Whether a write to the area may go on, whose bits are set already. Any thread.</summary>
    internal bool IsHot(int area)
    {
        int slot = Volatile.Read(ref _slotOf.Span[area]);
        if (slot == 0)
        {
            return false;
        }

        if (_used[slot - 1] == 0)
        {
            _used[slot - 1] = 1;
        }

        return true;
    }

    /// <summary>
    /// Gives the area a slot, if there is one. It is hot now, or when the next sync is over. False: no slot is free before that.
    /// </summary>
    /// <param name="area">The area.</param>
    /// <param name="file">The slots in the file.</param>
    internal bool TryAssign(uint area, Span<uint> file)
    {
        if (_known.TryGetValue(area, out int slot))
        {
            if (_states[slot] is SlotState.Cooling or SlotState.Cold)
            {
                Warm(slot); // the file names it still
            }

            return true;
        }

        if (!TryTake(out slot))
        {
            return false;
        }

        _areas[slot] = area;
        _states[slot] = SlotState.Assigned;
        _known.Add(area, slot);
        _assigned.Add(slot);
        Volatile.Write(ref file[slot], area + 1);
        return true;
    }

    /// <summary>Behind the assignments, before a sync: cools what has not been used, as far as slots are wanted soon.</summary>
    /// <param name="unmet">Areas that got none.</param>
    internal void Cool(int unmet)
    {
        int wanted = Math.Min(unmet + Reserve, ChangeLogLayout.Slots / 2) - _free.Count - _coldCount - _cooling.Count;
        for (int looks = 2 * ChangeLogLayout.Slots; wanted > 0 && looks > 0; looks--)
        {
            int slot = _hand;
            _hand = (_hand + 1) % ChangeLogLayout.Slots;
            if (_states[slot] != SlotState.Hot)
            {
                continue;
            }

            if (_used[slot] != 0)
            {
                _used[slot] = 0;
                continue;
            }

            Volatile.Write(ref _slotOf.Span[(int)_areas[slot]], 0);
            _states[slot] = SlotState.Cooling;
            _cooling.Add(slot);
            wanted--;
        }

        Interlocked.MemoryBarrier(); // whoever marks from now on sees that it is not hot, or is seen by the sync
    }

    /// <summary>Slots that the file had when it was opened and synced: they are hot.</summary>
    /// <returns>False when it names an area twice, or one that the disk has not.</returns>
    internal bool TryLoad(ReadOnlySpan<uint> file, ulong areas)
    {
        _free.Clear();
        for (int slot = ChangeLogLayout.Slots - 1; slot >= 0; slot--)
        {
            uint entry = file[slot];
            if (entry == 0)
            {
                _free.Push(slot);
                continue;
            }

            if (entry - 1 >= areas || !_known.TryAdd(entry - 1, slot))
            {
                return false;
            }

            _areas[slot] = entry - 1;
            Warm(slot);
        }

        return true;
    }

    /// <summary>The sync is over that began behind <see cref="Cool"/>.</summary>
    internal void Synced()
    {
        foreach (int slot in _assigned)
        {
            Warm(slot);
        }

        foreach (int slot in _cooling)
        {
            if (_states[slot] == SlotState.Cooling)
            {
                _states[slot] = SlotState.Cold;
                _coldCount++;
            }
        }

        _assigned.Clear();
        _cooling.Clear();
    }

    /// <inheritdoc/>
    public void Dispose() => _slotOf.Dispose();

    private void Warm(int slot)
    {
        _coldCount -= _states[slot] == SlotState.Cold ? 1 : 0;
        _states[slot] = SlotState.Hot;
        _used[slot] = 1;
        Volatile.Write(ref _slotOf.Span[(int)_areas[slot]], (ushort)(slot + 1));
    }

    private bool TryTake(out int slot)
    {
        if (_free.TryPop(out slot))
        {
            return true;
        }

        for (int looks = ChangeLogLayout.Slots; _coldCount > 0 && looks > 0; looks--)
        {
            slot = _coldHand;
            _coldHand = (_coldHand + 1) % ChangeLogLayout.Slots;
            if (_states[slot] == SlotState.Cold)
            {
                _coldCount--;
                _known.Remove(_areas[slot]);
                return true;
            }
        }

        return false;
    }
}
