using Vmm.Interop;

namespace Vmm.Devices.Virtio.Net;

/// <summary>A tap device of the host, one descriptor per queue.</summary>
public sealed class TapBackend : INetBackend
{
    private readonly Queue[] _queues;
    private int _active;

    /// <summary>Takes ownership of the queues of one tap.</summary>
    public TapBackend(IReadOnlyList<TapQueue> queues)
    {
        _queues = new Queue[queues.Count];
        for (int i = 0; i < _queues.Length; i++)
        {
            _queues[i] = new Queue(queues[i]);
        }

        _active = _queues.Length;
        // The kernel refuses bits it does not know: ask for less and less.
        const TapOffloads tso = TapOffloads.Tso4 | TapOffloads.Tso6;
        Offloads = SetOffloads(TapOffloads.Checksum | tso | TapOffloads.TsoEcn) ? TapOffloads.Checksum | tso | TapOffloads.TsoEcn
            : SetOffloads(TapOffloads.Checksum | tso) ? TapOffloads.Checksum | tso
            : SetOffloads(TapOffloads.Checksum) ? TapOffloads.Checksum
            : TapOffloads.None;
        SetOffloads(TapOffloads.None);
    }

    /// <inheritdoc/>
    public int QueueCount => _queues.Length;

    /// <inheritdoc/>
    public TapOffloads Offloads { get; }

    /// <summary>Opens the queues of a tap that exists.</summary>
    /// <exception cref="TapException">It cannot be used.</exception>
    public static TapBackend Open(string name, int queues)
    {
        TapQueue[] opened = new TapQueue[queues];
        try
        {
            for (int i = 0; i < queues; i++)
            {
                opened[i] = TapQueue.Open(name, multiQueue: queues > 1);
            }

            return new TapBackend(opened);
        }
        catch
        {
            foreach (TapQueue? queue in opened)
            {
                queue?.Dispose();
            }

            throw;
        }
    }

    /// <inheritdoc/>
    INetQueue INetBackend.Queue(int index) => _queues[index];

    /// <inheritdoc/>
    public bool SetOffloads(TapOffloads offloads) => _queues[0].Tap.TrySetOffloads(offloads); // one setting for the whole device

    /// <inheritdoc/>
    public void SetActiveQueues(int count)
    {
        for (; _active < count; _active++)
        {
            _queues[_active].Tap.TryAttach(true);
        }

        for (; _active > count; _active--)
        {
            _queues[_active - 1].Tap.TryAttach(false);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Queue queue in _queues)
        {
            queue.Tap.Dispose();
        }
    }

    private sealed class Queue(TapQueue tap) : INetQueue
    {
        internal TapQueue Tap => tap;

        public FileDescriptorHandle Handle => tap.Handle;

        public long Read(nint vectors, int count) => tap.Read(vectors, count);

        public long Write(nint vectors, int count) => tap.Write(vectors, count);
    }
}
