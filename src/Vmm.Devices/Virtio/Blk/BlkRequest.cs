using System.Buffers.Binary;
using Vmm.Interop;
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

    /// <summary>Bytes after the header that the device reads; their vectors come first.</summary>
    public ulong ReadableBytes;
    public int ReadableVectors;

    /// <summary>Bytes before the status that the device writes; their vectors follow.</summary>
    public ulong WritableBytes;
    public int WritableVectors;

    /// <summary>More segments than announced: the request fails, but has a status byte.</summary>
    public bool TooManySegments;

    /// <summary>Bytes the device writes when it succeeds, without the status.</summary>
    public uint WrittenOnSuccess;

    /// <summary>The segment of a discard or write-zeroes; read once, since the guest may change it while the request is held.</summary>
    public BlkRange Range;

    /// <summary>How it ends when storage has nothing to do for it, or has done it.</summary>
    public BlkStatus Answer;

    /// <summary>
    /// Reads a chain of any layout (virtio 1.2 section 2.7.4.3: no assumption about framing): 16 readable bytes of header wherever they are split, data,
    /// and the last writable byte is the status. False when there is no complete header or no status byte, or the chain is malformed.
    /// </summary>
    public static bool TryParse(GuestMemory memory, ChainWalker chain, ushort head, Span<IoVector> vectors, out BlkRequest request)
    {
        request = default;
        request.Head = head;
        Span<byte> header = stackalloc byte[HeaderLength];
        int headerBytes = 0, used = 0;
        VirtioBuffer last = default;
        bool haveLast = false;
        ChainStep step;
        while ((step = chain.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = chain.Current;
            if (buffer.Writable)
            {
                // One behind: the final writable buffer gives up its last byte to the status.
                if (haveLast && !request.AddWritable(memory, last, vectors, ref used))
                {
                    return false;
                }

                last = buffer;
                haveLast = true;
                continue;
            }

            uint skip = Math.Min(buffer.Length, (uint)(HeaderLength - headerBytes));
            if (skip > 0 && !memory.TryRead(buffer.Address, header.Slice(headerBytes, (int)skip)))
            {
                return false;
            }

            headerBytes += (int)skip;
            if (buffer.Length > skip && !request.AddReadable(memory, new(buffer.Address + skip, buffer.Length - skip, false), vectors, ref used))
            {
                return false;
            }
        }

        if (step == ChainStep.Malformed || headerBytes < HeaderLength || !haveLast)
        {
            return false;
        }

        request.Status = last.Address + (last.Length - 1);
        if (last.Length > 1 && !request.AddWritable(memory, last with { Length = last.Length - 1 }, vectors, ref used))
        {
            return false;
        }

        request.Type = (BlkType)BinaryPrimitives.ReadUInt32LittleEndian(header);
        request.Sector = BinaryPrimitives.ReadUInt64LittleEndian(header[8..]);
        return true;
    }

    private bool AddReadable(GuestMemory memory, VirtioBuffer buffer, Span<IoVector> vectors, ref int used)
    {
        ReadableBytes += buffer.Length;
        int before = used;
        bool ok = Add(memory, buffer, vectors, ref used);
        ReadableVectors += used - before;
        return ok;
    }

    private bool AddWritable(GuestMemory memory, VirtioBuffer buffer, Span<IoVector> vectors, ref int used)
    {
        WritableBytes += buffer.Length;
        int before = used;
        bool ok = Add(memory, buffer, vectors, ref used);
        WritableVectors += used - before;
        return ok;
    }

    private bool Add(GuestMemory memory, VirtioBuffer buffer, Span<IoVector> vectors, ref int used)
    {
        if (used == vectors.Length)
        {
            TooManySegments = true;
            return true;
        }

        if (!memory.TryGetHostAddress(buffer.Address, buffer.Length, out nint host))
        {
            return false;
        }

        vectors[used++] = new IoVector(host, buffer.Length);
        return true;
    }
}

/// <summary>struct virtio_blk_discard_write_zeroes, virtio 1.2 section 5.2.6.</summary>
internal readonly record struct BlkRange(ulong Sector, uint Sectors, uint Flags)
{
    public const int Length = 16;

    /// <summary>Bit 0 of the flags: the space may be given back.</summary>
    public const uint Unmap = 1;

    /// <summary>Gathers it from the first vectors of a request.</summary>
    public static BlkRange Read(ReadOnlySpan<IoVector> vectors)
    {
        Span<byte> bytes = stackalloc byte[Length];
        Span<byte> rest = bytes;
        foreach (ref readonly IoVector v in vectors)
        {
            int part = (int)Math.Min(v.Length, (nuint)rest.Length);
            HostSpan.Bytes(v.Base, part).CopyTo(rest);
            rest = rest[part..];
        }

        return new BlkRange(
            BinaryPrimitives.ReadUInt64LittleEndian(bytes), BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]), BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]));
    }
}
