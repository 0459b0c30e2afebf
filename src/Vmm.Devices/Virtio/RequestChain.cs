using Vmm.Memory;

namespace Vmm.Devices.Virtio;

/// <summary>
/// The chain that a <see cref="RingPump"/> serves: the bytes the device reads, and behind them those it writes, each as one sequence in
/// whatever pieces the driver laid them (virtio 1.2 section 2.7.4.1). The guest may write at the same time: copy once, check the copy. Used
/// again for every chain of its queue; nothing is allocated.
/// </summary>
internal sealed class RequestChain
{
    private readonly Virtqueue _queue;
    private readonly DmaSpace _memory;
    private readonly PageLease _readable, _writable;
    private readonly uint _mostReadable, _mostWritable;

    /// <summary>Makes it for one queue.</summary>
    /// <param name="queue">The queue.</param>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="mostReadable">Readable bytes that the device looks at; what follows them has no pages here.</param>
    /// <param name="mostWritable">Writable bytes that the device fills at most.</param>
    internal RequestChain(Virtqueue queue, DmaSpace memory, uint mostReadable, uint mostWritable)
    {
        _queue = queue;
        _memory = memory;
        _mostReadable = mostReadable;
        _mostWritable = mostWritable;
        // ChainWalker ends a chain after so many buffers.
        _readable = new PageLease(mostReadable > 0 ? queue.Size + 1 : 1);
        _writable = new PageLease(mostWritable > 0 ? queue.Size + 1 : 1);
    }

    /// <summary>Its head.</summary>
    public ushort Head { get; private set; }

    /// <summary>Bytes of all readable buffers, also of those that the device does not look at.</summary>
    public ulong ReadableBytes { get; private set; }

    /// <summary>Bytes of all writable buffers.</summary>
    public ulong WritableBytes { get; private set; }

    /// <summary>Copies readable bytes; fewer when the chain, or what the device looks at of it, ends.</summary>
    public int Read(ulong position, Span<byte> destination) => _readable.CopyTo(position, destination);

    /// <summary>Copies into writable bytes; fewer when the chain, or what the device fills of it, ends.</summary>
    public int Write(ulong position, ReadOnlySpan<byte> source) => _writable.CopyFrom(position, source);

    /// <summary>Number of writable pieces.</summary>
    public int WritablePieces => _writable.Count;

    /// <summary>One writable piece, until the handler returns.</summary>
    public Span<byte> WritablePiece(int piece) => _writable.Bytes(piece);

    /// <summary>Its buffers as addresses, for a device that does not touch them.</summary>
    public ChainWalker Walk() => _queue.Walk(Head);

    /// <summary>
    /// Where the first <paramref name="bytes"/> writable bytes lie, for an answer that is written after the handler returned, or whose
    /// memory the request itself takes away. False when there are not so many.
    /// </summary>
    public bool TryFindRoom(int bytes, Span<VirtioBuffer> room, out int pieces)
    {
        pieces = 0;
        uint found = 0;
        for (ChainWalker walker = Walk(); found < bytes && walker.MoveNext() == ChainStep.Buffer;)
        {
            if (walker.Current.Writable)
            {
                uint take = Math.Min(walker.Current.Length, (uint)bytes - found);
                room[pieces++] = walker.Current with { Length = take };
                found += take;
            }
        }

        return found == bytes;
    }

    /// <summary>
    /// Writes an answer to where <see cref="TryFindRoom"/> found room; the number of bytes from its start that are there.
    /// </summary>
    public static uint Scatter(DmaSpace memory, ReadOnlySpan<byte> answer, ReadOnlySpan<VirtioBuffer> room)
    {
        uint written = 0;
        foreach (VirtioBuffer piece in room)
        {
            // What was unplugged meanwhile cannot be written, and nobody could read it.
            if (!memory.TryWrite(piece.Address, answer.Slice((int)written, (int)piece.Length)))
            {
                break;
            }

            written += piece.Length;
        }

        return written;
    }

    /// <summary>Reads the descriptors; false when they break the rules.</summary>
    internal bool TryParse(ushort head)
    {
        Head = head;
        ReadableBytes = WritableBytes = 0;
        _readable.Forget();
        _writable.Forget();
        ChainWalker walker = _queue.Walk(head);
        ChainStep step;
        while ((step = walker.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = walker.Current;
            if (buffer.Writable)
            {
                Name(_writable, buffer, _mostWritable, WritableBytes);
                WritableBytes += buffer.Length;
            }
            else
            {
                Name(_readable, buffer, _mostReadable, ReadableBytes);
                ReadableBytes += buffer.Length;
            }
        }

        return step == ChainStep.End;
    }

    /// <summary>Acquires the pages of both parts, or of none. A part that names nothing needs none.</summary>
    internal Acquired Acquire(IPageWaiter waiter)
    {
        Acquired answer = _memory.TryAcquire(_readable, DmaAccess.Read, waiter);
        if (answer != Acquired.Ready)
        {
            return answer;
        }

        answer = _memory.TryAcquire(_writable, DmaAccess.Write, waiter);
        if (answer != Acquired.Ready)
        {
            _readable.Release();
        }

        return answer;
    }

    /// <summary>Ends the use.</summary>
    internal void Release()
    {
        _readable.Release();
        _writable.Release();
    }

    private static void Name(PageLease lease, in VirtioBuffer buffer, uint most, ulong before)
    {
        if (before < most)
        {
            lease.TryAdd(new GuestRange(buffer.Address, (uint)Math.Min(buffer.Length, most - before)));
        }
    }
}
