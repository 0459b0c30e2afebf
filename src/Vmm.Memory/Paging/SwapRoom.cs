using System.Numerics;

namespace Vmm.Memory.Paging;

/// <summary>
/// Which blocks of a swap file are in use: a bit a block, and above it a tree of the longest free runs, so that the first place that is
/// large enough is found in a few steps however scattered the free blocks are. Beside them, which blocks the file holds although they are
/// free (stale). 2.25 bits a block. For one thread.
/// </summary>
internal sealed class SwapRoom
{
    /// <summary>Most blocks that can be taken at once.</summary>
    internal const int MostBlocks = SwapLane.MostBlocks;

    private const int WordBits = 64, LargestStep = 16; // the largest power of two that is not above MostBlocks

    private readonly ulong[] _used;
    private readonly ulong[] _held; // were written since the file system had them last
    private readonly byte[] _runs; // a heap: 1 is the root, the words begin at _leaves
    private readonly int _leaves;
    private int _top; // no word above it has stale blocks

    /// <summary>All of it is free.</summary>
    /// <param name="blocks">How many there are.</param>
    internal SwapRoom(long blocks)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(blocks);
        Blocks = blocks;
        Free = blocks;
        int words = checked((int)((blocks + WordBits - 1) / WordBits));
        _held = new ulong[words + 1];
        _used = new ulong[words + 1]; // the last one has no blocks: no run goes over the end
        _used[words] = ulong.MaxValue;
        if (blocks % WordBits != 0)
        {
            _used[words - 1] = ulong.MaxValue << (int)(blocks % WordBits);
        }

        _leaves = checked((int)BitOperations.RoundUpToPowerOf2((uint)words));
        _runs = new byte[2 * _leaves];
        _runs.AsSpan(_leaves, words).Fill(MostBlocks);
        for (int word = Math.Max(0, words - 2); word < words; word++)
        {
            _runs[_leaves + word] = (byte)LongestFrom(word); // the end may come first
        }

        for (int node = _leaves - 1; node > 0; node--)
        {
            _runs[node] = Math.Max(_runs[2 * node], _runs[(2 * node) + 1]);
        }
    }

    /// <summary>Blocks in all.</summary>
    internal long Blocks { get; }

    /// <summary>Blocks that are not taken.</summary>
    internal long Free { get; private set; }

    /// <summary>Blocks that are free and that the file holds.</summary>
    internal long Stale { get; private set; }

    /// <summary>Takes blocks that lie together, the first that do; -1 when there are none.</summary>
    /// <param name="count">1 to <see cref="MostBlocks"/>.</param>
    internal long Take(int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, MostBlocks);
        if (_runs[1] < count)
        {
            return -1;
        }

        int node = 1;
        while (node < _leaves)
        {
            node = _runs[2 * node] >= count ? 2 * node : (2 * node) + 1;
        }

        int word = node - _leaves;
        long first = ((long)word * WordBits) + BitOperations.TrailingZeroCount(Starts(word, count));
        Mark(first, count, used: true);
        Hold(first, count, held: true, out int before); // somebody is going to write them
        Stale -= before;
        Free -= count;
        return first;
    }

    /// <summary>Gives blocks back that were taken together; the file goes on to hold them.</summary>
    internal void Return(long first, int count)
    {
        Mark(first, count, used: false);
        Free += count;
        Stale += count;
        _top = Math.Max(_top, (int)((first + count - 1) / WordBits));
    }

    /// <summary>
    /// Takes the last stale blocks that lie together, at most <see cref="WordBits"/>, for as long as it takes to give them to the file
    /// system: the first ones are used again first.
    /// </summary>
    /// <returns>False when there are none.</returns>
    internal bool TryTakeStale(out long first, out int count)
    {
        first = count = 0;
        if (Stale == 0)
        {
            return false;
        }

        ulong stale;
        while ((stale = ~_used[_top] & _held[_top]) == 0)
        {
            _top--;
        }

        int last = WordBits - 1 - BitOperations.LeadingZeroCount(stale);
        count = BitOperations.LeadingZeroCount(~(stale << (WordBits - 1 - last)));
        first = ((long)_top * WordBits) + last - count + 1;
        Mark(first, count, used: true);
        Free -= count;
        Stale -= count;
        return true;
    }

    /// <summary>Ends <see cref="TryTakeStale"/>.</summary>
    /// <param name="first">The first.</param>
    /// <param name="count">How many.</param>
    /// <param name="isGone">The file does not hold them any more.</param>
    internal void ReturnStale(long first, int count, bool isGone)
    {
        if (isGone)
        {
            Hold(first, count, held: false, out _);
            Mark(first, count, used: false);
            Free += count;
        }
        else
        {
            Return(first, count);
        }
    }

    private void Hold(long first, int count, bool held, out int before)
    {
        int word = (int)(first / WordBits), shift = (int)(first % WordBits);
        UInt128 mask = ((UInt128.One << count) - 1) << shift;
        before = Hold(word, (ulong)mask, held) + Hold(word + 1, (ulong)(mask >> WordBits), held);
    }

    private int Hold(int word, ulong mask, bool held)
    {
        int before = BitOperations.PopCount(_held[word] & mask);
        _held[word] = held ? _held[word] | mask : _held[word] & ~mask;
        return before;
    }

    /// <summary>Bit i: so many free blocks begin at block i of the word; they may go on in the next word.</summary>
    private ulong Starts(int word, int count)
    {
        UInt128 runs = FreeFrom(word);
        for (int length = 1; length < count;)
        {
            int step = Math.Min(length, count - length);
            runs &= runs >> step;
            length += step;
        }

        return (ulong)runs;
    }

    private UInt128 FreeFrom(int word) => new(~_used[word + 1], ~_used[word]);

    private int LongestFrom(int word)
    {
        int length = 0;
        for (int step = LargestStep; step > 0; step >>= 1)
        {
            if (length + step <= MostBlocks && Starts(word, length + step) != 0)
            {
                length += step;
            }
        }

        return length;
    }

    private void Mark(long first, int count, bool used)
    {
        int word = (int)(first / WordBits), shift = (int)(first % WordBits);
        UInt128 mask = ((UInt128.One << count) - 1) << shift;
        Mark(word, (ulong)mask, used);
        if ((ulong)(mask >> WordBits) is not 0 and ulong rest)
        {
            Mark(word + 1, rest, used);
            Update(word + 1);
        }

        Update(word);
        if (word > 0)
        {
            Update(word - 1); // its runs may go on in this one
        }
    }

    private void Mark(int word, ulong mask, bool used)
    {
        if ((_used[word] & mask) != (used ? 0 : mask))
        {
            throw new InvalidOperationException("Blocks of a swap file were taken or returned twice.");
        }

        _used[word] ^= mask;
    }

    private void Update(int word)
    {
        int node = _leaves + word;
        byte run = (byte)LongestFrom(word);
        while (_runs[node] != run)
        {
            _runs[node] = run;
            if (node == 1)
            {
                return;
            }

            run = Math.Max(run, _runs[node ^ 1]);
            node >>= 1;
        }
    }
}
