namespace Vmm.Storage.Qcow2;

/// <summary>
/// The pieces of L2 tables that are in memory, of all images of a chain, at most so many bytes. Under the disk's lock. What leaves is found
/// by a clock; what differs from the file stays until it was written.
/// </summary>
internal sealed class L2Cache : IDisposable
{
    /// <summary>Bytes of a slice; a table that is smaller is one slice.</summary>
    internal const int SliceBytes = 4096;

    private readonly Dictionary<ulong, L2Slot> _byKey = [];
    private readonly List<L2Slot> _slots = [];
    private readonly int _most;
    private int _hand;

    /// <param name="bytes">Most memory for slices.</param>
    internal L2Cache(int bytes) => _most = Math.Max(8, bytes / SliceBytes);

    /// <summary>All slots there are.</summary>
    internal IReadOnlyList<L2Slot> Slots => _slots;

    /// <summary>Slots that differ from the file.</summary>
    internal int Dirty { get; private set; }

    /// <summary>So many differ from the file that they should be written soon.</summary>
    internal bool IsCrowded => 2 * Dirty >= _most;

    internal static ulong KeyOf(int layer, ulong slice) => ((ulong)layer << 48) | slice;

    internal static int LayerOf(ulong key) => (int)(key >> 48);

    internal static ulong SliceOf(ulong key) => key & ((1ul << 48) - 1);

    /// <summary>The slot of a slice, loaded or on its way in.</summary>
    internal L2Slot? Find(ulong key)
    {
        if (_byKey.TryGetValue(key, out L2Slot? slot))
        {
            slot.IsUsed = true;
            return slot;
        }

        return null;
    }

    /// <summary>A slot for a slice that is not here, not loaded yet; null when all are needed by others now.</summary>
    internal L2Slot? TryAdd(ulong key)
    {
        L2Slot? slot = _slots.Count < _most ? Grow() : Evict();
        if (slot is not null)
        {
            slot.Key = key;
            slot.IsLoaded = false;
            slot.IsUsed = true;
            _byKey.Add(key, slot);
        }

        return slot;
    }

    /// <summary>An entry of the slot was changed, in this generation.</summary>
    internal void MarkDirty(L2Slot slot, long generation)
    {
        Dirty += slot.IsDirty ? 0 : 1;
        slot.DirtySince = slot.IsDirty ? Math.Min(slot.DirtySince, generation) : generation;
        slot.IsDirty = true;
    }

    /// <summary>A copy of the slot was taken to be written.</summary>
    internal void MarkCaptured(L2Slot slot)
    {
        Dirty--;
        slot.IsDirty = false;
        slot.IsBeingWritten = true;
    }

    /// <summary>A slot whose slice could not be read is free again.</summary>
    internal void Forget(L2Slot slot)
    {
        _byKey.Remove(slot.Key);
        slot.Key = ulong.MaxValue;
        slot.IsLoaded = true; // nothing waits for it: the clock may take it
        slot.IsUsed = false;
    }

    public void Dispose()
    {
        foreach (L2Slot slot in _slots)
        {
            slot.Dispose();
        }
    }

    private L2Slot Grow()
    {
        L2Slot slot = new();
        _slots.Add(slot);
        return slot;
    }

    private L2Slot? Evict()
    {
        for (int looked = 0; looked < 2 * _slots.Count; looked++)
        {
            L2Slot slot = _slots[_hand];
            _hand = (_hand + 1) % _slots.Count;
            if (!slot.IsEvictable)
            {
                continue;
            }

            if (!slot.IsUsed)
            {
                _byKey.Remove(slot.Key);
                return slot;
            }

            slot.IsUsed = false;
        }

        return null;
    }
}
