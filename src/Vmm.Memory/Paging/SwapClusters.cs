using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>A cluster of a swap store: pages that were written together. 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct SwapCluster
{
    /// <summary>Number of the write that made it: no other write had it.</summary>
    internal ulong Sequence;

    /// <summary>Its first block; of an entry that is not used, the next of those.</summary>
    internal uint Place;

    /// <summary>A bit for each page that is not freed.</summary>
    internal ushort Live;

    /// <summary>Pages that were written.</summary>
    internal byte Pages;

    /// <summary>Blocks that it takes.</summary>
    internal byte Blocks;
}

/// <summary>
/// The clusters of a swap store, by number: a table outside the managed heap, whose memory appears as it is used. For one thread.
/// </summary>
internal sealed class SwapClusters : IDisposable
{
    private const int PageBits = 4, NumberBits = 32;

    private readonly AnonymousMapping _table;
    private readonly uint _most;
    private uint _fresh; // entries from here on were never used
    private uint _spare; // 1 + the first entry that was used and is not; 0: none

    /// <summary>Room for so many; each has at least one block.</summary>
    /// <exception cref="KernelException">Out of memory.</exception>
    internal SwapClusters(uint most)
    {
        _most = most;
        _table = new AnonymousMapping((ulong)most * (ulong)Unsafe.SizeOf<SwapCluster>());
    }

    /// <summary>Adds one without live pages.</summary>
    /// <returns>Its number.</returns>
    internal uint Add(SwapCluster cluster)
    {
        uint number;
        if (_spare != 0)
        {
            number = _spare - 1;
            _spare = At(number).Place;
        }
        else
        {
            number = _fresh < _most ? _fresh++ : throw new InvalidOperationException("A swap store has more clusters than blocks.");
        }

        At(number) = cluster;
        return number;
    }

    /// <summary>The entry of a number that <see cref="Add"/> gave.</summary>
    internal ref SwapCluster At(uint number) => ref MemoryMarshal.AsRef<SwapCluster>(
        _table.Slice((ulong)number * (ulong)Unsafe.SizeOf<SwapCluster>(), Unsafe.SizeOf<SwapCluster>()));

    /// <summary>Ends one; its number is used again.</summary>
    internal void Remove(uint number)
    {
        At(number) = new SwapCluster { Place = _spare };
        _spare = number + 1;
    }

    /// <summary>The slot of a page: its place in the cluster, the cluster's number, and the lower bits of the sequence.</summary>
    internal static SwapSlot SlotOf(uint number, ulong sequence, int page) =>
        new((sequence << (PageBits + NumberBits)) | ((ulong)number << PageBits) | (uint)page);

    /// <summary>Sequences for which every slot differs from none.</summary>
    internal static bool MakesSlots(ulong sequence) => sequence << (PageBits + NumberBits) != 0;

    /// <summary>Finds the page of a slot.</summary>
    /// <exception cref="ArgumentException">There is none: it was freed, or never written.</exception>
    internal (uint Number, int Page) Find(SwapSlot slot)
    {
        uint number = (uint)(slot.Value >> PageBits);
        int page = (int)(slot.Value & ((1 << PageBits) - 1));
        return number < _fresh && (At(number).Live & (1 << page)) != 0 && SlotOf(number, At(number).Sequence, page) == slot
            ? (number, page)
            : throw new ArgumentException("The slot is free.", nameof(slot));
    }

    /// <inheritdoc/>
    public void Dispose() => _table.Dispose();
}
