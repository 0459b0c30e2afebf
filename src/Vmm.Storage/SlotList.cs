namespace Vmm.Storage;

/// <summary>Slots of requests that wait, in their order. Made once; nothing allocates later.</summary>
internal sealed class SlotList(int capacity)
{
    private readonly int[] _slots = new int[capacity];

    /// <summary>How many wait.</summary>
    internal int Count { get; private set; }

    /// <summary>The one at <paramref name="index"/>; 0 has waited longest.</summary>
    internal int this[int index] => _slots[index];

    /// <summary>Adds one behind the others.</summary>
    internal void Add(int slot) => _slots[Count++] = slot;

    /// <summary>Takes one out; the order of the others stays.</summary>
    internal void RemoveAt(int index)
    {
        Count--;
        _slots.AsSpan(index + 1, Count - index).CopyTo(_slots.AsSpan(index));
    }
}
