using Vmm.Memory;
using Vmm.State;

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

    /// <summary>What is plugged, for saving.</summary>
    public MemStateV1 Capture()
    {
        byte[] bits = new byte[(_plugged.Length + 7) / 8];
        for (int i = 0; i < _plugged.Length; i++)
        {
            bits[i / 8] |= (byte)((_plugged[i] ? 1 : 0) << (i % 8));
        }

        return new MemStateV1
        {
            BlockBytes = BlockSize,
            Blocks = (uint)_plugged.Length,
            RequestedBytes = RequestedBytes,
            Plugged = bits,
        };
    }

    /// <summary>Takes a saved state, fresh.</summary>
    /// <exception cref="StateException">It does not fit, or the host has not the memory.</exception>
    public void Restore(MemStateV1 state)
    {
        const string Kind = MemStateV1.Kind;
        int count = _plugged.Length, left = count % 8;
        if (state.BlockBytes != BlockSize || state.Blocks != count)
        {
            throw new StateException(
                $"{Kind}: the region had {state.Blocks} blocks of {state.BlockBytes} bytes, this one has {count} of {BlockSize.Bytes}");
        }

        if (state.Plugged.Length != (count + 7) / 8 || (left > 0 && state.Plugged[^1] >> left != 0))
        {
            throw new StateException($"{Kind}: the bitmap is not of {count} blocks");
        }

        if (state.RequestedBytes % BlockSize != 0 || state.RequestedBytes / BlockSize > (ulong)count)
        {
            throw new StateException($"{Kind}: {state.RequestedBytes} bytes were asked for, which is no number of blocks of the region");
        }

        for (int i = 0; i < count; i++)
        {
            _plugged[i] = ((state.Plugged[i / 8] >> (i % 8)) & 1) != 0;
        }

        PluggedBytes = (ulong)_plugged.AsSpan().Count(true) * BlockSize;
        RequestedBytes = state.RequestedBytes;
        if (!_memory.TryRestore(_plugged))
        {
            throw new StateException(
                $"{Kind}: the host does not give the {PluggedBytes >> 20} MiB that were plugged: out of memory or slots");
        }
    }

    /// <summary>The next range of plugged blocks, bytes from the start of the region; false: there is none.</summary>
    public bool TryFindPlugged(ulong from, out ulong start, out ulong end)
    {
        int first = (int)Math.Min(from / BlockSize, (ulong)_plugged.Length);
        int skip = _plugged.AsSpan(first).IndexOf(true);
        int count = skip < 0 ? 0 : _plugged.AsSpan(first + skip).IndexOf(false);
        start = Math.Max(from, (ulong)(first + skip) * BlockSize);
        end = count < 0 ? (ulong)_plugged.Length * BlockSize : (ulong)(first + skip + count) * BlockSize;
        return skip >= 0;
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
        bool valid = count > 0 && address >= _start.Value && offset % BlockSize == 0
            && block < (ulong)_plugged.Length && count <= (ulong)_plugged.Length - block;
        first = valid ? (int)block : 0;
        return valid;
    }
}
