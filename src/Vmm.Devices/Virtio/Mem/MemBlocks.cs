using Vmm.Memory;

namespace Vmm.Devices.Virtio.Mem;

/// <summary>What a request is answered with, virtio 1.2 section 5.15.6.</summary>
internal enum MemAnswer : ushort
{
    /// <summary>Done.</summary>
    Ack = 0,

    /// <summary>Not allowed now: it would go beyond what the host asked for.</summary>
    Nack = 1,

    /// <summary>The host cannot now; the driver may try again.</summary>
    Busy = 2,

    /// <summary>The request makes no sense.</summary>
    Error = 3,
}

/// <summary>State of a range, virtio 1.2 section 5.15.6.5.</summary>
internal enum MemRangeState : ushort
{
    Plugged = 0,
    Unplugged = 1,
    Mixed = 2,
}

/// <summary>
/// Which blocks of a virtio-mem region are plugged (virtio 1.2 section 5.15): the rules of its requests, without rings and threads. Not
/// thread-safe.
/// </summary>
internal sealed class MemBlocks
{
    private readonly IPluggableMemory _memory;
    private readonly bool[] _plugged;
    private readonly GuestAddress _start;

    /// <summary>All blocks unplugged.</summary>
    /// <exception cref="ArgumentException">The region is not whole blocks, or the block size is not a power of two of at least 4
    /// KiB.</exception>
    public MemBlocks(GuestAddress start, ByteSize length, ByteSize blockSize, IPluggableMemory memory)
    {
        if (blockSize < 4096 || !System.Numerics.BitOperations.IsPow2(blockSize.Bytes))
        {
            throw new ArgumentException($"{blockSize} is no block size", nameof(blockSize));
        }

        if (length == 0 || length % blockSize != 0 || start.Value % blockSize != 0)
        {
            throw new ArgumentException($"{length} at {start} is not a number of blocks of {blockSize}", nameof(length));
        }

        (_start, BlockSize, _memory) = (start, blockSize, memory);
        _plugged = new bool[length / blockSize];
    }

    /// <summary>Bytes of one block.</summary>
    public ByteSize BlockSize { get; }

    /// <summary>Bytes plugged now.</summary>
    public ulong PluggedBytes { get; private set; }

    /// <summary>Bytes the host wants plugged; a plug request beyond it is refused (5.15.6.2).</summary>
    public ulong RequestedBytes { get; set; }

    /// <summary>5.15.6.2.</summary>
    public MemAnswer Plug(ulong address, ushort count)
    {
        if (!TryRange(address, count, out int first) || StateOf(first, count) != MemRangeState.Unplugged)
        {
            return MemAnswer.Error;
        }

        ulong length = count * BlockSize.Bytes;
        if (length > RequestedBytes - Math.Min(PluggedBytes, RequestedBytes))
        {
            return MemAnswer.Nack;
        }

        if (!_memory.TryPlug((ulong)first * BlockSize, length))
        {
            return MemAnswer.Busy;
        }

        _plugged.AsSpan(first, count).Fill(true);
        PluggedBytes += length;
        return MemAnswer.Ack;
    }

    /// <summary>5.15.6.3.</summary>
    public MemAnswer Unplug(ulong address, ushort count)
    {
        if (!TryRange(address, count, out int first) || StateOf(first, count) != MemRangeState.Plugged)
        {
            return MemAnswer.Error;
        }

        Take(first, count);
        return MemAnswer.Ack;
    }

    /// <summary>5.15.6.4.</summary>
    public MemAnswer UnplugAll()
    {
        for (int first = 0; first < _plugged.Length;)
        {
            int count = 0;
            while (first + count < _plugged.Length && _plugged[first + count])
            {
                count++;
            }

            if (count > 0)
            {
                Take(first, count);
            }

            first += count + 1;
        }

        return MemAnswer.Ack;
    }

    /// <summary>5.15.6.5.</summary>
    public MemAnswer State(ulong address, ushort count, out MemRangeState state)
    {
        bool valid = TryRange(address, count, out int first);
        state = valid ? StateOf(first, count) : default;
        return valid ? MemAnswer.Ack : MemAnswer.Error;
    }

    private void Take(int first, int count)
    {
        _plugged.AsSpan(first, count).Clear();
        ulong length = (ulong)count * BlockSize.Bytes;
        PluggedBytes -= length;
        _memory.Unplug((ulong)first * BlockSize, length);
    }

    private MemRangeState StateOf(int first, int count)
    {
        ReadOnlySpan<bool> range = _plugged.AsSpan(first, count);
        return !range.Contains(true) ? MemRangeState.Unplugged : !range.Contains(false) ? MemRangeState.Plugged : MemRangeState.Mixed;
    }

    private bool TryRange(ulong address, ushort count, out int first)
    {
        ulong offset = unchecked(address - _start.Value), block = offset / BlockSize;
        bool valid = count > 0 && address >= _start.Value && offset % BlockSize == 0 && block < (ulong)_plugged.Length && count <= (ulong)_plugged.Length - block;
        first = valid ? (int)block : 0;
        return valid;
    }
}
