using System.Runtime.CompilerServices;
using Vmm.Interop;
using Vmm.Memory.Paging;

namespace Vmm.Memory;

/// <summary>Pages that follow each other, by their numbers in a <see cref="ResidencyCache"/>.</summary>
internal readonly record struct PinnedPages(ulong First, ulong Count);

/// <summary>
/// Ranges of guest memory that a device uses now. Its owner makes it once for each request slot and uses it again and again: nothing is
/// allocated. One thread at a time. The guest may write at the same time: copy a value once, check the copy, use the copy.
/// </summary>
public sealed unsafe class PageLease
{
    private readonly IoVector[] _vectors;
    private readonly GuestRange[] _ranges;
    private GuestRam? _ram; // of the last hold, and so most often of the next: a reference that stays need not be stored
    private RegionTable? _table; // where its ranges were found; as above
    private bool _isHeld;
    private DmaAccess _access;
    private int _named; // ranges for the next acquire, and those that are held
    private int _count;
    private int _hint;
    private PinnedPages[] _pins = []; // as long as the others once its memory is paged
    private int _pinCount;

    /// <summary>Makes a lease that is not held.</summary>
    /// <param name="maximumPieces">The most ranges it can hold.</param>
    public PageLease(int maximumPieces)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(maximumPieces);
        // Pinned: the kernel reads the vectors by address.
        _vectors = GC.AllocateArray<IoVector>(maximumPieces, pinned: true);
        _ranges = new GuestRange[maximumPieces];
    }

    /// <summary>The most ranges it can hold.</summary>
    public int MaximumPieces => _vectors.Length;

    /// <summary>True from an acquire that answered <see cref="Acquired.Ready"/> to <see cref="Release"/>.</summary>
    public bool IsHeld => _isHeld;

    /// <summary>How many ranges it holds; 0 when not held.</summary>
    public int Count => _count;

    /// <summary>Bytes of all ranges; 0 when not held.</summary>
    public ulong Length { get; private set; }

    /// <summary>How many ranges it names, held or not.</summary>
    public int Named => _named;

    /// <summary>What it names, held or not; until something else is named.</summary>
    public ReadOnlySpan<GuestRange> Names => NamedRanges;

    internal ReadOnlySpan<GuestRange> NamedRanges => _ranges.AsSpan(0, _named);

    /// <summary>What is pinned for it, in <see cref="PinnedIn"/>.</summary>
    internal ReadOnlySpan<PinnedPages> PinnedRanges => _pins.AsSpan(0, _pinCount);

    /// <summary>Sum of <see cref="PinnedRanges"/>.</summary>
    internal long PinnedCount { get; private set; }

    /// <summary>Whose pins they are.</summary>
    internal PinLane? PinnedIn { get; private set; }

    /// <summary>Room for what is pinned, one place a piece.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal Span<PinnedPages> PinRoom() =>
        _pins.Length > 0 ? _pins : _pins = new PinnedPages[_vectors.Length];

    /// <summary>Notes what of <see cref="PinRoom"/> was filled.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void NotePinned(PinLane lane, int ranges, long pages)
    {
        if (!ReferenceEquals(PinnedIn, lane))
        {
            PinnedIn = lane; // most often it is the same, and to store a reference costs more than to look
        }

        (_pinCount, PinnedCount) = (ranges, pages);
    }

    /// <summary>Nothing of <see cref="PinRoom"/> is pinned any more.</summary>
    internal void NoteUnpinned() => _pinCount = 0;

    /// <summary>Names one more range for the next acquire, which checks it; false when there are as many as it can hold.</summary>
    /// <exception cref="InvalidOperationException">The lease is held.</exception>
    public bool TryAdd(GuestRange range)
    {
        RequireFree();
        if (_named == _ranges.Length)
        {
            return false;
        }

        _ranges[_named++] = range;
        return true;
    }

    /// <summary>Names nothing any more. Ranges stay named over a release: what was put back can be acquired again.</summary>
    /// <exception cref="InvalidOperationException">The lease is held.</exception>
    public void Forget()
    {
        RequireFree();
        _named = 0;
    }

    /// <summary>
    /// One vector for each range, in order, for the kernel. They lie at a fixed address; valid until <see cref="Release"/>.
    /// </summary>
    public ReadOnlySpan<IoVector> Vectors => new(_vectors, 0, _count);

    /// <summary>
    /// The bytes of one piece, the first 2^31 - 1 of a larger one; valid until <see cref="Release"/>. Write only what was acquired for
    /// <see cref="DmaAccess.Write"/>.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such piece.</exception>
    public Span<byte> Bytes(int piece)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)piece, (uint)_count, nameof(piece));
        ref readonly IoVector vector = ref _vectors[piece];
        return new Span<byte>((void*)vector.Base, (int)Math.Min(vector.Length, int.MaxValue));
    }

    /// <summary>Copies bytes out of guest memory, as if the pieces were one.</summary>
    /// <param name="position">Bytes to skip from the start of the first piece.</param>
    /// <param name="destination">Where to.</param>
    /// <returns>Bytes copied: fewer than asked for when the lease ends.</returns>
    public int CopyTo(ulong position, Span<byte> destination)
    {
        int done = 0;
        for (int i = 0; i < _count && done < destination.Length; i++)
        {
            if (TrySkip(i, ref position, destination.Length - done, out Span<byte> part))
            {
                part.CopyTo(destination[done..]);
                done += part.Length;
            }
        }

        return done;
    }

    /// <summary>Copies bytes into guest memory, as if the pieces were one.</summary>
    /// <param name="position">Bytes to skip from the start of the first piece.</param>
    /// <param name="source">Where from.</param>
    /// <returns>Bytes copied: fewer than given when the lease ends.</returns>
    /// <exception cref="InvalidOperationException">The lease is held for reading: nobody would mark the pages.</exception>
    public int CopyFrom(ulong position, ReadOnlySpan<byte> source)
    {
        RequireWrite();
        int done = 0;
        for (int i = 0; i < _count && done < source.Length; i++)
        {
            if (TrySkip(i, ref position, source.Length - done, out Span<byte> part))
            {
                source.Slice(done, part.Length).CopyTo(part);
                done += part.Length;
            }
        }

        return done;
    }

    /// <summary>
    /// Reads one value (native byte order), which may lie over the border of two pieces; false when the lease ends before it.
    /// </summary>
    public bool TryRead<T>(ulong position, out T value)
        where T : unmanaged
    {
        Unsafe.SkipInit(out T copy);
        bool whole = CopyTo(position, new Span<byte>(&copy, sizeof(T))) == sizeof(T);
        value = whole ? copy : default;
        return whole;
    }

    /// <summary>Writes one value (native byte order); false, and nothing written, when it does not fit in.</summary>
    /// <exception cref="InvalidOperationException">The lease is held for reading: nobody would mark the pages.</exception>
    public bool TryWrite<T>(ulong position, T value)
        where T : unmanaged
    {
        RequireWrite();
        return position <= Length && Length - position >= (ulong)sizeof(T)
            && CopyFrom(position, new ReadOnlySpan<byte>(&value, sizeof(T))) == sizeof(T);
    }

    /// <summary>
    /// Ends the use: marks the pages of a write lease as written when writes are tracked. Does nothing when the lease is not held.
    /// </summary>
    public void Release() => ReleaseWritten(_count);

    /// <summary>The same for a use that wrote to the first <paramref name="pieces"/> pieces at most: only those are marked.</summary>
    public void ReleaseWritten(int pieces)
    {
        if (!_isHeld)
        {
            return;
        }

        GuestRam ram = _ram!;

        if (_access == DmaAccess.Write && ram.IsTrackingWrites)
        {
            foreach (GuestRange range in _ranges.AsSpan(0, Math.Min(pieces, _count)))
            {
                ram.MarkWritten(range.Address, range.Length);
            }
        }

        ram.Pages?.Unpin(this);
        Drop();
    }

    /// <summary>True when the regions are still those in which its ranges were found.</summary>
    internal bool IsCurrent => ReferenceEquals(_ram?.Table, _table);

    /// <summary>Ends a hold whose pages were not pinned, and marks nothing.</summary>
    internal void Drop()
    {
        _isHeld = false;
        _count = 0;
        Length = 0;
    }

    internal void Name(ReadOnlySpan<GuestRange> ranges)
    {
        if (ranges.Length > _vectors.Length)
        {
            throw new ArgumentException($"{ranges.Length} ranges do not fit into a lease of {_vectors.Length} pieces.", nameof(ranges));
        }

        Forget();
        if (ranges.Length == 1)
        {
            _ranges[0] = ranges[0]; // most often; a copy of any length costs more
        }
        else
        {
            ranges.CopyTo(_ranges);
        }

        _named = ranges.Length;
    }

    internal bool TryHold(GuestRam ram, DmaAccess access)
    {
        RequireFree();
        RegionTable table = ram.Table;
        ulong length = 0;
        for (int i = 0; i < _named; i++)
        {
            ref readonly GuestRange range = ref _ranges[i];
            byte* host;
            if (access == DmaAccess.Write
                ? !table.TryMapToWrite(range.Address, range.Length, ref _hint, out host)
                : !table.TryMap(range.Address, range.Length, ref _hint, out host))
            {
                return false;
            }

            _vectors[i] = new IoVector((nint)host, range.Length);
            length += range.Length;
        }

        if (!ReferenceEquals(_ram, ram))
        {
            _ram = ram;
        }

        if (!ReferenceEquals(_table, table))
        {
            _table = table;
        }

        _isHeld = true;
        _access = access;
        _count = _named;
        Length = length;
        return true;
    }

    /// <summary>
    /// What of one piece lies after <paramref name="position"/>, at most <paramref name="limit"/> bytes; false when the piece is skipped
    /// whole.
    /// </summary>
    private bool TrySkip(int piece, ref ulong position, int limit, out Span<byte> part)
    {
        ref readonly IoVector vector = ref _vectors[piece];
        if (position >= vector.Length)
        {
            position -= vector.Length;
            part = default;
            return false;
        }

        part = new Span<byte>((byte*)vector.Base + position, (int)Math.Min(vector.Length - position, (uint)limit));
        position = 0;
        return true;
    }

    private void RequireWrite()
    {
        if (!_isHeld || _access != DmaAccess.Write)
        {
            throw new InvalidOperationException("The lease is not held for writing.");
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void RequireFree()
    {
        if (_isHeld)
        {
            ThrowHeld();
        }
    }

    private static void ThrowHeld() =>
        throw new InvalidOperationException("The lease is held: release it before it is used again.");
}
