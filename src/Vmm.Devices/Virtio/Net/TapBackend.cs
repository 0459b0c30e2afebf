using Vmm.Interop;

namespace Vmm.Devices.Virtio.Net;

/// <summary>A tap device of the host, one descriptor per queue.</summary>
public sealed class TapBackend : INetBackend
{
    // Offloads set, queues attached and detached: each change takes the lock that all network configuration of the host shares (RTNL). A
    // driver makes a
    // handful when it starts, eight queue pairs' at most; one that does it in a loop waits, and only that guest does.
    private const ulong ChangesPerSecond = 20, ChangesAtOnce = 64;

    private readonly Queue[] _queues;
    private readonly VhostNet[] _kernel;
    private readonly RatePace _pace;
    private TapOffloads? _set;
    private int _active;

    /// <summary>Takes ownership of the queues of one tap.</summary>
    /// <param name="queues">The queues.</param>
    /// <param name="kernel">vhost-net for each queue, owned too; null or empty: frames are moved here.</param>
    public TapBackend(IReadOnlyList<TapQueue> queues, IReadOnlyList<VhostNet>? kernel = null)
    {
        _pace = new RatePace(ChangesPerSecond, ChangesAtOnce);
        _kernel = [.. kernel ?? []];
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
    public string? Interface => _queues[0].Tap.Name;

    /// <inheritdoc/>
    public TapOffloads Offloads { get; }

    /// <summary>Opens the queues of a tap that exists.</summary>
    /// <param name="name">The tap.</param>
    /// <param name="queues">How many.</param>
    /// <param name="kernel">Have the host's kernel move the frames.</param>
    /// <exception cref="TapException">It cannot be used.</exception>
    /// <exception cref="KernelException"><paramref name="kernel"/>, and vhost-net is not to be had.</exception>
    public static TapBackend Open(string name, int queues, bool kernel = false)
    {
        List<TapQueue> opened = [];
        try
        {
            while (opened.Count < queues)
            {
                opened.Add(TapQueue.Open(name, multiQueue: queues > 1));
            }
        }
        catch
        {
            opened.ForEach(queue => queue.Dispose());
            throw;
        }

        return Of(opened, kernel);
    }

    /// <summary>Takes ownership of the queues of one tap, and opens vhost-net for them when that is wished.</summary>
    /// <exception cref="KernelException"><paramref name="kernel"/>, and vhost-net is not to be had; the queues are closed.</exception>
    public static TapBackend Of(IReadOnlyList<TapQueue> queues, bool kernel)
    {
        List<VhostNet> vhost = [];
        try
        {
            while (kernel && vhost.Count < queues.Count)
            {
                vhost.Add(VhostNet.FromDescriptor(VhostNet.OpenDescriptor()));
            }

            return new TapBackend(queues, vhost);
        }
        catch
        {
            vhost.ForEach(one => one.Dispose());
            foreach (TapQueue queue in queues)
            {
                queue.Dispose();
            }

            throw;
        }
    }

    /// <inheritdoc/>
    INetQueue INetBackend.Queue(int index) => _queues[index];

    /// <inheritdoc/>
    IKernelPair? INetBackend.KernelPair(int index) => index < _kernel.Length ? new Pair(_kernel[index], _queues[index].Tap) : null;

    /// <inheritdoc/>
    public bool SetOffloads(TapOffloads offloads)
    {
        if (_set == offloads)
        {
            return true;
        }

        _pace.Wait();
        bool taken = _queues[0].Tap.TrySetOffloads(offloads); // one setting for the whole device
        _set = taken ? offloads : null;
        return taken;
    }

    /// <inheritdoc/>
    public void SetActiveQueues(int count)
    {
        for (; _active < count; _active++)
        {
            _pace.Wait();
            _queues[_active].Tap.TryAttach(true);
        }

        for (; _active > count; _active--)
        {
            _pace.Wait();
            _queues[_active - 1].Tap.TryAttach(false);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        // First: the kernel's end of a ring holds the tap.
        foreach (VhostNet vhost in _kernel)
        {
            vhost.Dispose();
        }

        foreach (Queue queue in _queues)
        {
            queue.Tap.Dispose();
        }
    }

    private sealed class Pair(VhostNet vhost, TapQueue tap) : IKernelPair
    {
        public ulong Features => vhost.Features;

        public void SetFeatures(ulong features) => vhost.SetFeatures(features);

        public void SetMemory(ReadOnlySpan<VhostRegion> regions) => vhost.SetMemory(regions);

        public void SetRing(int index, in VhostRing ring) => vhost.SetRing(index, ring);

        public void Serve(int index) => vhost.Serve(index, tap.Handle);

        public ushort Stop(int index) => vhost.Stop(index);
    }

    private sealed class Queue(TapQueue tap) : INetQueue
    {
        internal TapQueue Tap => tap;

        public FileDescriptorHandle Handle => tap.Handle;

        public int Read(Span<TapFrame> frames) => tap.Read(frames);

        public int Write(Span<TapFrame> frames) => tap.Write(frames);
    }
}
