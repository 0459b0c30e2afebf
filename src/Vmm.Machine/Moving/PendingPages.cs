using System.Numerics;
using Vmm.Machine.Saved;
using Vmm.Memory;

namespace Vmm.Machine.Moving;

/// <summary>
/// Pages of one memory of a machine that are to be sent. Between rounds one thread adds to them; in a round several take them, in chunks
/// that only one of them has.
/// </summary>
internal sealed class PendingPages
{
    /// <summary>Pages of a chunk.</summary>
    internal const int ChunkPages = 256;

    private const int Shift = 6, WordMask = 63, ChunkWords = ChunkPages >> Shift;

    private readonly MemoryPart _part;
    private readonly ulong[] _bits;
    private readonly ulong _host;

    /// <summary>None yet.</summary>
    /// <param name="part">The memory.</param>
    /// <param name="number">Its number in the channels.</param>
    internal PendingPages(MemoryPart part, int number)
    {
        (_part, Number) = (part, number);
        Pages = part.Bytes / MoveFrame.PageBytes;
        _bits = new ulong[((Pages + ChunkPages - 1) / ChunkPages) << 2];
        _host = (ulong)part.Memory.Region(default, new ByteSize(part.Bytes), 0).HostAddress;
    }

    /// <summary>Its number in the channels.</summary>
    internal int Number { get; }

    /// <summary>Pages of the memory.</summary>
    internal ulong Pages { get; }

    /// <summary>Chunks of the memory.</summary>
    internal int Chunks => _bits.Length / ChunkWords;

    /// <summary>How many pages are to be sent. Not in a round.</summary>
    internal ulong Count
    {
        get
        {
            ulong count = 0;
            foreach (ulong word in _bits)
            {
                count += (ulong)BitOperations.PopCount(word);
            }

            return count;
        }
    }

    /// <summary>Adds all that was ever touched.</summary>
    internal void AddTouched()
    {
        for (ulong at = 0; _part.TryFindData(at, out ulong start, out ulong end); at = end)
        {
            ulong first = start / MoveFrame.PageBytes, over = Math.Min((end + MoveFrame.PageBytes - 1) / MoveFrame.PageBytes, Pages);
            for (ulong page = first; page < over;)
            {
                int shift = (int)(page & WordMask);
                ulong count = Math.Min(64 - (ulong)shift, over - page);
                _bits[page >> Shift] |= (count == 64 ? ulong.MaxValue : (1UL << (int)count) - 1) << shift;
                page += count;
            }
        }
    }

    /// <summary>Whether a memory slot is of this memory.</summary>
    internal bool Has(in MemorySlot slot) =>
        (ulong)slot.Region.HostAddress >= _host && (ulong)slot.Region.HostAddress - _host < _part.Bytes;

    /// <summary>Adds pages of a slot of this memory.</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="bitmap">Bit N is page N of the slot.</param>
    internal void Add(in MemorySlot slot, ReadOnlySpan<ulong> bitmap)
    {
        ulong first = ((ulong)slot.Region.HostAddress - _host) / MoveFrame.PageBytes;
        int shift = (int)(first & WordMask);
        int words = (int)((slot.Region.Length.Pages + WordMask) >> Shift), into = (int)(first >> Shift);
        for (int i = 0; i < words; i++)
        {
            ulong word = bitmap[i];
            if (word == 0)
            {
                continue;
            }

            _bits[into + i] |= word << shift;
            if (shift != 0 && word >> (64 - shift) is not 0 and var rest)
            {
                _bits[into + i + 1] |= rest;
            }
        }
    }

    /// <summary>
    /// The next run of pages of a chunk that are to be sent, which are not from here on. By the one that has the chunk.
    /// </summary>
    /// <param name="chunk">The chunk.</param>
    /// <param name="most">Longest run.</param>
    /// <param name="first">First page of it.</param>
    /// <param name="count">Pages of it.</param>
    /// <returns>False: there are none left in it.</returns>
    internal bool TryTake(int chunk, int most, out ulong first, out int count)
    {
        int word = chunk * ChunkWords, end = word + ChunkWords;
        while (word < end && _bits[word] == 0)
        {
            word++;
        }

        (first, count) = (0, 0);
        if (word == end)
        {
            return false;
        }

        int bit = BitOperations.TrailingZeroCount(_bits[word]);
        first = ((ulong)word << Shift) + (ulong)bit;
        while (count < most && word < end && (_bits[word] >> bit & 1) != 0)
        {
            _bits[word] &= ~(1UL << bit);
            count++;
            bit = (bit + 1) & WordMask;
            word += bit == 0 ? 1 : 0;
        }

        return true;
    }

    /// <summary>Whether the guest has a chunk; what it has not need not be sent. Blocks that come and go are never smaller.</summary>
    internal bool IsPresent(int chunk) => _part.Device is not { } device
        || (device.TryFindPlugged((ulong)chunk * ChunkPages * MoveFrame.PageBytes, out ulong first, out _)
            && first <= (ulong)chunk * ChunkPages * MoveFrame.PageBytes);

    /// <summary>Drops what is to be sent of a chunk. By the one that has it.</summary>
    internal void Drop(int chunk) => _bits.AsSpan(chunk * ChunkWords, ChunkWords).Clear();

    /// <summary>Copies pages out; the guest may write them meanwhile, and is told of then.</summary>
    internal void Copy(ulong first, Span<byte> pages) => _part.Memory.CopyTo(first * MoveFrame.PageBytes, pages);
}
