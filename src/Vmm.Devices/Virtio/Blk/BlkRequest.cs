using System.Buffers.Binary;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>Request types, virtio 1.2 section 5.2.6.</summary>
internal enum BlkType : uint
{
    In = 0,
    Out = 1,
    Flush = 4,
    GetId = 8,
    Discard = 11,
    WriteZeroes = 13,
}

/// <summary>Status byte, virtio 1.2 section 5.2.6.</summary>
internal enum BlkStatus : byte
{
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// <summary>What a chain says: the header, where the data lies, where the status goes.</summary>
internal struct BlkRequest
{
    public const int HeaderLength = 16;

    public ushort Head;
    public BlkType Type;
    public ulong Sector;
    public GuestAddress Status;

    /// <summary>Bytes after the header that the device reads.</summary>
    public ulong ReadableBytes;

    /// <summary>Bytes before the status that the device writes.</summary>
    public ulong WritableBytes;

    /// <summary>More segments than announced: the request fails, but has a status byte.</summary>
    public bool TooManySegments;

    /// <summary>Bytes the device writes when it succeeds, without the status.</summary>
    public uint WrittenOnSuccess;

    /// <summary>How it ends when storage has nothing to do for it, or has done it.</summary>
    public BlkStatus Answer;

    /// <summary>What has to come before the chain can be parsed; of no length when nothing has to.</summary>
    public GuestRange Missing;

    private const int TypeBytes = 4;

    /// <summary>
    /// Reads a chain of any layout (virtio 1.2 section 2.7.4.3: no assumption about framing): 16 readable bytes of header wherever they are
    /// split, data, and the last writable byte is the status. False when there is no complete header or no status byte, or the chain is
    /// malformed, or something of it is <see cref="Missing"/>.
    /// </summary>
    /// <param name="memory">Guest memory.</param>
    /// <param name="queue">Its queue. The walk along the chain begins here: a copy of where it stands would cost more than a step.</param>
    /// <param name="head">Head of the chain.</param>
    /// <param name="data">Names the data that the request moves afterwards; acquires nothing.</param>
    /// <param name="request">What it says.</param>
    public static bool TryParse(DmaSpace memory, Virtqueue queue, ushort head, PageLease data, out BlkRequest request)
    {
        ChainWalker chain = queue.Walk(head);
        request = default;
        request.Head = head;
        data.Forget();
        Span<byte> header = stackalloc byte[HeaderLength];
        int headerBytes = 0;
        VirtioBuffer last = default;
        ChainStep step;
        while ((step = chain.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = chain.Current;
            if (!buffer.Writable)
            {
                if (!request.TryAddReadable(memory, buffer, header, ref headerBytes, data))
                {
                    return false;
                }

                continue;
            }

            if (headerBytes < HeaderLength)
            {
                return false;
            }

            request.AddWritable(last, data); // one behind: the final writable buffer gives up its last byte to the status
            last = buffer;
        }

        if (step == ChainStep.Malformed || headerBytes < HeaderLength || last.Length == 0)
        {
            return false;
        }

        request.Status = last.Address + (last.Length - 1);
        request.AddWritable(last with { Length = last.Length - 1 }, data);
        request.Sector = BinaryPrimitives.ReadUInt64LittleEndian(header[8..]);
        return request.IsHere(memory, new GuestRange(request.Status, 1))
            && (request.Type is not (BlkType.Discard or BlkType.WriteZeroes) || request.AreHere(memory, data));
    }

    // Few bytes, which are copied when the request begins or ends. It is long before that for a status byte: what was used lately stays.
    private bool IsHere(DmaSpace memory, GuestRange range)
    {
        Missing = memory.IsHere(range) ? default : range;
        return Missing.Length == 0;
    }

    private bool AreHere(DmaSpace memory, PageLease named)
    {
        foreach (GuestRange range in named.Names)
        {
            if (!IsHere(memory, range))
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>What the device does with the memory of its data.</summary>
    public readonly DmaAccess Access => Type is BlkType.In or BlkType.GetId ? DmaAccess.Write : DmaAccess.Read;

    // The header first, wherever it is split, then data. False when the header is not in RAM.
    private bool TryAddReadable(DmaSpace memory, VirtioBuffer buffer, Span<byte> header, ref int headerBytes, PageLease data)
    {
        uint skip = Math.Min(buffer.Length, (uint)(HeaderLength - headerBytes));
        if (skip > 0)
        {
            if (!IsHere(memory, new GuestRange(buffer.Address, skip))
                || !memory.TryRead(buffer.Address, header.Slice(headerBytes, (int)skip)))
            {
                return false;
            }

            headerBytes += (int)skip;
            Type = (BlkType)BinaryPrimitives.ReadUInt32LittleEndian(header[..TypeBytes]);
        }

        if (buffer.Length > skip)
        {
            // A request moves data one way: what a driver sends along for the other way is counted and never touched.
            ReadableBytes += buffer.Length - skip;
            TooManySegments |= Access == DmaAccess.Read && !data.TryAdd(new(buffer.Address + skip, buffer.Length - skip));
        }

        return true;
    }

    private void AddWritable(VirtioBuffer buffer, PageLease data)
    {
        WritableBytes += buffer.Length;
        TooManySegments |= buffer.Length > 0 && Access == DmaAccess.Write && !data.TryAdd(new(buffer.Address, buffer.Length));
    }
}

/// <summary>struct virtio_blk_discard_write_zeroes, virtio 1.2 section 5.2.6.</summary>
internal readonly record struct BlkRange(ulong Sector, uint Sectors, uint Flags)
{
    public const int Length = 16;

    /// <summary>Bit 0 of the flags: the space may be given back.</summary>
    public const uint Unmap = 1;

    /// <summary>Reads it from its bytes.</summary>
    public static BlkRange Read(ReadOnlySpan<byte> bytes) => new(
        BinaryPrimitives.ReadUInt64LittleEndian(bytes),
        BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]),
        BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]));
}
