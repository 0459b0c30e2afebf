using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Net;

/// <summary>A chain that was taken ahead of its frame: where its ranges begin, how many there are, and how many bytes they hold.</summary>
internal struct PostedChain
{
    public ushort Head;
    public int FirstRange;
    public int Ranges;
    public long Capacity;
}

/// <summary>
/// The chains that a receiver has taken and not filled, oldest first. They are ranges: none has pages until a frame is there. One thread;
/// nothing is allocated for a chain.
/// </summary>
/// <param name="ring">Where they come from.</param>
internal sealed class PostedChains(Virtqueue ring)
{
    /// <summary>Most pieces of one frame: IOV_MAX.</summary>
    public const int MaxPieces = 1024;

    /// <summary>Ranges of all chains together, at most.</summary>
    public const int MaxRanges = 4 * MaxPieces;

    private readonly PostedChain[] _chains = new PostedChain[ring.Size];
    private readonly GuestRange[] _ranges = new GuestRange[MaxRanges];
    private int _first, _end, _rangeEnd;

    /// <summary>How many there are.</summary>
    public int Count => _end - _first;

    /// <summary>Bytes of all of them.</summary>
    public long Capacity { get; private set; }

    // Room for the longest chain: a queue's worth of descriptors, at most 1024, and one more of an indirect table.
    /// <summary>There is room for one more.</summary>
    public bool CanTakeMore => Count < ring.Size && (_rangeEnd <= _ranges.Length - MaxPieces - 2 || Compact());

    /// <summary>One of the oldest.</summary>
    public ref readonly PostedChain First(int offset) => ref At(offset);

    /// <summary>The buffers of a chain.</summary>
    public ReadOnlySpan<GuestRange> RangesOf(in PostedChain chain) => _ranges.AsSpan(chain.FirstRange, chain.Ranges);

    /// <summary>Takes chains until there are so many that hold so many bytes, or no more. False when the driver broke the ring.</summary>
    public bool Fill(int chains, long bytes)
    {
        while ((Count < chains || Capacity < bytes) && CanTakeMore)
        {
            TakeResult taken = ring.TryTake(out ushort head);
            if (taken != TakeResult.Taken)
            {
                return taken == TakeResult.Empty;
            }

            if (!Add(head))
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>How many of the first chains hold so many bytes, as far as the kernel takes so many pieces.</summary>
    public int GroupFor(int bytes)
    {
        int chains = 0, pieces = 0;
        long capacity = 0;
        while (chains < Count && capacity < bytes && pieces + First(chains).Ranges < MaxPieces)
        {
            pieces += First(chains).Ranges;
            capacity += First(chains++).Capacity;
        }

        return chains;
    }

    /// <summary>How many of the first chains so many bytes take.</summary>
    public int ChainsFor(long bytes)
    {
        int chains = 0;
        for (long covered = 0; covered < bytes; chains++)
        {
            covered += First(chains).Capacity;
        }

        return chains;
    }

    /// <summary>The oldest was filled and given back.</summary>
    public void RemoveFirst()
    {
        Capacity -= First(0).Capacity;
        _first++;
        if (_first == _end)
        {
            _first = _end = _rangeEnd = 0;
        }
        else if (_first >= _chains.Length)
        {
            _first -= _chains.Length;
            _end -= _chains.Length;
        }
    }

    /// <summary>All of them count as never taken.</summary>
    public void GiveBack()
    {
        ring.Untake(Count);
        _first = _end = _rangeEnd = 0;
        Capacity = 0;
    }

    private ref PostedChain At(int offset) => ref _chains[(_first + offset) % _chains.Length];

    /// <summary>Moves the ranges to the front; false when that makes no room.</summary>
    private bool Compact()
    {
        int end = 0;
        for (int i = 0; i < Count; i++)
        {
            ref PostedChain chain = ref At(i);
            _ranges.AsSpan(chain.FirstRange, chain.Ranges).CopyTo(_ranges.AsSpan(end));
            chain.FirstRange = end;
            end += chain.Ranges;
        }

        _rangeEnd = end;
        return end <= _ranges.Length - MaxPieces - 2;
    }

    private bool Add(ushort head)
    {
        ChainWalker walker = ring.Walk(head);
        int start = _rangeEnd, end = start;
        long capacity = 0;
        ChainStep step;
        while ((step = walker.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = walker.Current;
            if (!buffer.Writable || end >= _ranges.Length - 1)
            {
                return false;
            }

            _ranges[end++] = new GuestRange(buffer.Address, buffer.Length);
            capacity += buffer.Length;
        }

        // 5.1.6.3.1: every buffer holds at least the header.
        if (step == ChainStep.Malformed || capacity < TapQueue.HeaderLength)
        {
            return false;
        }

        _chains[_end++ % _chains.Length] = new PostedChain { Head = head, FirstRange = start, Ranges = end - start, Capacity = capacity };
        Capacity += capacity;
        _rangeEnd = end;
        return true;
    }
}
