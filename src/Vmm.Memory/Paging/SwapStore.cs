using System.Security.Cryptography;
using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>
/// Pages in a file: compressed, several in one write, encrypted with a key that only this object has, and proved when they are read. Its
/// form is told in this folder's README. No lock is held during I/O. Everything that it loads is loaded when it is made: afterwards the
/// process may lose its file system.
/// </summary>
public sealed class SwapStore : ISwapStore
{
    /// <summary>Bytes of a block: a cluster takes whole ones, and begins at one.</summary>
    public const int BlockBytes = 4096;

    /// <summary>Fewest bytes of a store: one cluster of pages that do not compress.</summary>
    public const ulong LeastBytes = (ulong)SwapLane.MostBlocks * BlockBytes;

    /// <summary>Most bytes of a store: 8 TiB.</summary>
    public const ulong MostBytes = 1ul << 43;

    private const int Spare = 1024; // stale blocks that stay
    private const int ReadLanes = 4, WriteLanes = 2, KeyBytes = 32;

    private readonly FileDescriptorHandle _file;
    private readonly SwapLanes _readers = new(ReadLanes), _writers = new(WriteLanes);
    private readonly Lock _gate = new(); // what is below; never during I/O
    private readonly SwapRoom _room;
    private readonly SwapClusters _clusters;
    private ulong _sequence, _pages, _pagesWritten, _pagesRead, _bytesWritten, _bytesRead;
    private bool _isDisposed, _trims;

    /// <summary>Opens a store without pages.</summary>
    /// <param name="file">Of <see cref="SwapFile"/>, or a block device. The store closes it. What it holds is overwritten.</param>
    /// <param name="limit">
    /// Most bytes that it takes of the file, <see cref="LeastBytes"/> to <see cref="MostBytes"/>; rounded down to whole blocks.
    /// </param>
    /// <exception cref="SwapStoreException">The host has no library for encryption, or the file is neither a file nor a disk.</exception>
    /// <exception cref="KernelException">Out of memory, or the file cannot be examined.</exception>
    public SwapStore(FileDescriptorHandle file, ulong limit)
    {
        CheckLimit(limit);
        if (!AesGcm.IsSupported)
        {
            throw new SwapStoreException("a swap store needs OpenSSL to encrypt pages, and libssl.so.3 cannot be loaded (package libssl3)");
        }

        BlockFileKind kind = BlockFile.Inspect(file).Kind;
        if (kind == BlockFileKind.Other)
        {
            throw new SwapStoreException("a swap store is a regular file or a block device");
        }

        _trims = kind == BlockFileKind.RegularFile;
        _file = file;
        long blocks = (long)(limit / BlockBytes);
        _room = new SwapRoom(blocks);
        _clusters = new SwapClusters((uint)blocks);
        Span<byte> key = stackalloc byte[KeyBytes];
        try
        {
            HostRandom.Fill(key);
            MakeLanes(_readers, ReadLanes, key);
            MakeLanes(_writers, WriteLanes, key);
        }
        finally
        {
            CryptographicOperations.ZeroMemory(key);
        }
    }

    /// <summary>What a thread asks for that writes and reads pages.</summary>
    public static SyscallNeeds Needs { get; } = new(["pread64", "pwrite64", "fallocate"], []);

    /// <inheritdoc/>
    public SwapStatistics Statistics
    {
        get
        {
            lock (_gate)
            {
                return new SwapStatistics(
                    _pages, (ulong)(_room.Blocks - _room.Free) * BlockBytes, (ulong)_room.Blocks * BlockBytes,
                    _pagesWritten, _pagesRead, _bytesWritten, _bytesRead);
            }
        }
    }

    /// <inheritdoc/>
    public void Write(ReadOnlySpan<byte> pages, Span<SwapSlot> slots)
    {
        int count = pages.Length / ISwapStore.PageBytes;
        if (count is 0 or > ISwapStore.MostPages || pages.Length % ISwapStore.PageBytes != 0)
        {
            throw new ArgumentException($"{pages.Length} bytes are not 1 to {ISwapStore.MostPages} pages.", nameof(pages));
        }

        ArgumentOutOfRangeException.ThrowIfLessThan(slots.Length, count, nameof(slots));
        SwapLane lane = _writers.Take();
        try
        {
            int blocks = lane.Pack(pages);
            uint number = Reserve(count, blocks, out SwapCluster cluster);
            int answer = 0;
            try
            {
                lane.Seal(cluster);
                answer = lane.Write(_file, cluster);
            }
            finally
            {
                Finish(number, answer == blocks * BlockBytes);
            }

            if (answer != blocks * BlockBytes)
            {
                throw Unwritten(cluster, answer);
            }

            for (int page = 0; page < count; page++)
            {
                slots[page] = SwapClusters.SlotOf(number, cluster.Sequence, page);
            }
        }
        finally
        {
            _writers.Return(lane);
        }
    }

    /// <inheritdoc/>
    public int Read(SwapSlot slot, Span<byte> pages, Span<SwapSlot> slots)
    {
        int most = Math.Min(pages.Length / ISwapStore.PageBytes, slots.Length);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(most, nameof(pages));
        SwapLane lane = _readers.Take();
        try
        {
            SwapCluster cluster;
            uint number;
            int asked;
            lock (_gate)
            {
                (number, asked) = _clusters.Find(slot);
                cluster = _clusters.At(number);
            }

            Load(lane, slot, cluster);
            int count = 0;
            Unpack(lane, cluster, asked, pages);
            slots[count++] = slot;
            for (int page = 0; page < cluster.Pages && count < most; page++)
            {
                if (page != asked && (cluster.Live & (1 << page)) != 0)
                {
                    Unpack(lane, cluster, page, pages[(count * ISwapStore.PageBytes)..]);
                    slots[count++] = SwapClusters.SlotOf(number, cluster.Sequence, page);
                }
            }

            lock (_gate)
            {
                _pagesRead += (ulong)count;
            }

            return count;
        }
        finally
        {
            _readers.Return(lane);
        }
    }

    /// <inheritdoc/>
    public void Free(SwapSlot slot)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            (uint number, int page) = _clusters.Find(slot);
            ref SwapCluster cluster = ref _clusters.At(number);
            cluster.Live &= (ushort)~(1 << page);
            _pages--;
            if (cluster.Live == 0)
            {
                _room.Return(cluster.Place, cluster.Blocks);
                _clusters.Remove(number);
            }
        }
    }

    /// <inheritdoc/>
    public ulong Trim(ulong most)
    {
        ulong done = 0;
        while (done < most && _trims)
        {
            long first;
            int count;
            lock (_gate)
            {
                // Some stays, for what is written next: to get it from the file system again costs more than it is worth.
                if (_isDisposed || _room.Stale <= Spare + ((_room.Blocks - _room.Free) / 8) || !_room.TryTakeStale(out first, out count))
                {
                    return done;
                }
            }

            int answer = BlockFile.Allocate(
                _file, FallocateModes.PunchHole | FallocateModes.KeepSize, (ulong)first * BlockBytes, (ulong)count * BlockBytes);
            lock (_gate)
            {
                _room.ReturnStale(first, count, isGone: answer == 0);
            }

            _trims = answer == 0; // a file system that cannot do it never can
            done += answer == 0 ? (ulong)count * BlockBytes : 0;
        }

        return done;
    }

    /// <summary>Forgets the key, when nobody writes or reads any more, and closes the file. Its content is lost.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            if (_isDisposed)
            {
                return;
            }

            _isDisposed = true;
        }

        _readers.Close();
        _writers.Close();
        lock (_gate)
        {
            _clusters.Dispose();
        }

        _file.Dispose();
    }

    /// <summary>Where a cluster begins in the file.</summary>
    internal static ulong OffsetOf(in SwapCluster cluster) => (ulong)cluster.Place * BlockBytes;

    /// <exception cref="ArgumentOutOfRangeException">A store cannot have it.</exception>
    internal static void CheckLimit(ulong limit)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(limit, LeastBytes);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(limit, MostBytes);
    }

    // Each has done all of its work once: what it loads, it has.
    private static void MakeLanes(SwapLanes lanes, int count, ReadOnlySpan<byte> key)
    {
        Span<byte> page = new byte[ISwapStore.PageBytes];
        for (int i = 0; i < count; i++)
        {
            SwapLane lane = new(key);
            // Number 0 is no write's. Its plain text is zeros, for all lanes alike.
            SwapCluster cluster = new() { Pages = 1, Blocks = (byte)lane.Pack(page) };
            lane.Seal(cluster);
            if (!lane.TryOpen(cluster) || !lane.TryUnpack(cluster, 0, page))
            {
                throw new SwapStoreException("a swap store cannot be used: a page did not come back from its own encryption");
            }

            lanes.Return(lane);
        }
    }

    /// <summary>A number and a place for a cluster, none of whose pages can be read yet.</summary>
    private uint Reserve(int pages, int blocks, out SwapCluster cluster)
    {
        lock (_gate)
        {
            long place = _room.Take(blocks);
            if (place < 0)
            {
                throw new SwapStoreException(
                    $"the swap store is full: no {blocks * BlockBytes} bytes lie together of {_room.Free * BlockBytes} free ones", true);
            }

            do
            {
                _sequence++;
            }
            while (!SwapClusters.MakesSlots(_sequence));
            cluster = new SwapCluster { Sequence = _sequence, Place = (uint)place, Pages = (byte)pages, Blocks = (byte)blocks };
            return _clusters.Add(cluster);
        }
    }

    private void Finish(uint number, bool isWritten)
    {
        lock (_gate)
        {
            ref SwapCluster cluster = ref _clusters.At(number);
            if (!isWritten)
            {
                _room.Return(cluster.Place, cluster.Blocks);
                _clusters.Remove(number);
                return;
            }

            cluster.Live = (ushort)((1 << cluster.Pages) - 1);
            _pages += cluster.Pages;
            _pagesWritten += cluster.Pages;
            _bytesWritten += cluster.Blocks * (ulong)BlockBytes;
        }
    }

    private void Load(SwapLane lane, SwapSlot slot, in SwapCluster cluster)
    {
        int bytes = cluster.Blocks * BlockBytes, answer;
        try
        {
            answer = lane.Read(_file, cluster);
        }
        catch (KernelException cause)
        {
            throw new SwapStoreException($"the swap store cannot read {Name(cluster)}: {cause.Message}", isFull: false, cause);
        }

        lock (_gate)
        {
            _bytesRead += (ulong)answer;
        }

        if (answer == bytes && lane.TryOpen(cluster))
        {
            return;
        }

        lock (_gate)
        {
            _ = _clusters.Find(slot); // freed meanwhile: the caller's error, not the file's
        }

        throw new SwapStoreException(answer < bytes
            ? $"the swap store cannot read {Name(cluster)}: the file ends after {answer} of them; it was changed by somebody else"
            : $"the swap store refuses {Name(cluster)}: they are not what was written; the file was changed by somebody else");
    }

    private static void Unpack(SwapLane lane, in SwapCluster cluster, int page, Span<byte> pages)
    {
        if (!lane.TryUnpack(cluster, page, pages[..ISwapStore.PageBytes]))
        {
            throw new SwapStoreException($"the swap store refuses page {page} of {Name(cluster)}: it does not unpack");
        }
    }

    private static SwapStoreException Unwritten(in SwapCluster cluster, int answer)
    {
        if (answer >= 0)
        {
            return new SwapStoreException($"the swap store cannot write {Name(cluster)}: only {answer} were taken");
        }

        KernelException cause = new("pwrite", -answer);
        return new SwapStoreException(
            $"the swap store cannot write {Name(cluster)}: {cause.Message}",
            isFull: -answer is Errno.ENOSPC or Errno.EDQUOT or Errno.EFBIG,
            cause);
    }

    private static string Name(in SwapCluster cluster) => $"{cluster.Blocks * BlockBytes} bytes at {OffsetOf(cluster)}";
}
