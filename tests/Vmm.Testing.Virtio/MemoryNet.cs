using Vmm.Devices.Virtio.Net;
using Vmm.Interop;

namespace Vmm.Testing.Virtio;

/// <summary>The host's side in memory: packet sockets, which are readable, writable and full as a tap is.</summary>
public sealed class MemoryNet : INetBackend
{
    private readonly Port[] _queues;

    public MemoryNet(int queues = 1, TapOffloads offloads = TapOffloads.Checksum | TapOffloads.Tso4 | TapOffloads.Tso6 | TapOffloads.TsoEcn)
    {
        Offloads = offloads;
        _queues = [.. Enumerable.Range(0, queues).Select(_ => new Port())];
    }

    public int QueueCount => _queues.Length;

    public TapOffloads Offloads { get; }

    public string? Interface { get; init; }

    public TapOffloads Set { get; private set; }

    public int Active { get; private set; }

    public bool RefuseWrites { get; set; }

    /// <summary>Errnos of the next reads, each of which costs a frame.</summary>
    public System.Collections.Concurrent.ConcurrentQueue<int> ReadFaults { get; } = new();

    /// <summary>Reads of the device so far.</summary>
    public int Reads { get; private set; }

    /// <summary>Pairs that a kernel could serve; null: none.</summary>
    public IKernelPair[]? Kernel { get; init; }

    public IKernelPair? KernelPair(int index) => Kernel?[index];

    public INetQueue Queue(int index)
    {
        _queues[index].Owner = this;
        return _queues[index];
    }

    public bool SetOffloads(TapOffloads offloads)
    {
        Set = offloads;
        return true;
    }

    public void SetActiveQueues(int count) => Active = count;

    /// <summary>A frame of the host towards the guest: 10 bytes of header as a tap writes them, two of nothing, the payload.</summary>
    public void Send(int queue, ReadOnlySpan<byte> payload, byte flags = 0, int timeout = 20_000)
    {
        byte[] frame = new byte[12 + payload.Length];
        frame[0] = flags;
        frame[10] = frame[11] = 0xEE;
        payload.CopyTo(frame.AsSpan(12));
        _queues[queue].Far.Send(frame, [], timeout);
    }

    /// <summary>The same, unless the queue is full.</summary>
    public void TrySend(int queue, ReadOnlySpan<byte> payload, byte flags = 0)
    {
        try
        {
            Send(queue, payload, flags, 0);
        }
        catch (KernelException full) when (full.Errno is 11 or 110)
        {
        }
    }

    /// <summary>A frame of the guest, with its header; null when there is none.</summary>
    public byte[]? Receive(int queue)
    {
        byte[] buffer = new byte[70_000];
        return _queues[queue].Far.Receive(buffer, 0, out int length, out _) == PacketKind.Packet ? buffer[..length] : null;
    }

    /// <summary>Forgets every frame under way in both directions; nobody else may use the queues meanwhile.</summary>
    public void Clear()
    {
        byte[] buffer = new byte[70_000];
        foreach (Port queue in _queues)
        {
            while (queue.Near.Receive(buffer, 0, out _, out _) == PacketKind.Packet
                || queue.Far.Receive(buffer, 0, out _, out _) == PacketKind.Packet)
            {
            }
        }
    }

    public void HangUp(int queue) => _queues[queue].Far.Dispose();

    public void Dispose()
    {
        foreach (Port queue in _queues)
        {
            queue.Near.Dispose();
            queue.Far.Dispose();
        }
    }

    private sealed class Port : INetQueue
    {
        private readonly byte[] _buffer = new byte[70_000];

        public Port() => (Near, Far) = PacketSocket.CreatePair();

        public MemoryNet? Owner { get; set; }

        public PacketSocket Near { get; }

        public PacketSocket Far { get; }

        public FileDescriptorHandle Handle => Near.Handle;

        public int Read(Span<TapFrame> frames)
        {
            for (int i = 0; i < frames.Length; i++)
            {
                frames[i].Result = ReadOne(frames[i].Vectors, frames[i].Count);
                if (frames[i].Result < 0 || frames[i].Result > frames[i].Room)
                {
                    return frames[i].Result < 0 ? i : i + 1;
                }
            }

            return frames.Length;
        }

        public int Write(Span<TapFrame> frames)
        {
            for (int i = 0; i < frames.Length; i++)
            {
                frames[i].Result = frames[i].Count == 0 ? -90 : WriteOne(frames[i].Vectors, frames[i].Count);
                if (frames[i].Result == -11)
                {
                    return i;
                }
            }

            return frames.Length;
        }

        private long ReadOne(nint vectors, int count)
        {
            PacketKind kind = Near.Receive(_buffer, 0, out int length, out _);
            Owner!.Reads++;
            if (kind == PacketKind.Packet && Owner.ReadFaults.TryDequeue(out int fault))
            {
                return -fault;
            }

            if (kind != PacketKind.Packet)
            {
                return kind == PacketKind.Empty ? -11 : -77;
            }

            Span<byte> rest = _buffer.AsSpan(0, length);
            foreach (IoVector vector in HostSpan.Vectors(vectors, count))
            {
                int part = (int)Math.Min(vector.Length, (nuint)rest.Length);
                rest[..part].CopyTo(HostSpan.Bytes(vector.Base, part));
                rest = rest[part..];
            }

            return length - rest.Length;
        }

        private long WriteOne(nint vectors, int count)
        {
            if (Owner!.RefuseWrites)
            {
                return -5;
            }

            int length = 0;
            foreach (IoVector vector in HostSpan.Vectors(vectors, count))
            {
                int part = (int)Math.Min(vector.Length, (nuint)(_buffer.Length - length));
                HostSpan.Bytes(vector.Base, part).CopyTo(_buffer.AsSpan(length));
                length += part;
            }

            try
            {
                Near.Send(_buffer.AsSpan(0, length), [], 0);
                return length;
            }
            catch (KernelException full) when (full.Errno is 11 or 110)
            {
                return -11;
            }
            catch (KernelException)
            {
                return -77;
            }
        }
    }
}
