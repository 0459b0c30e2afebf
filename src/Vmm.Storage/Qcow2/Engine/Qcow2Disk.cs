using Vmm.Io;

namespace Vmm.Storage.Qcow2;

/// <summary>
/// A disk that is a chain of images: a qcow2 image whose unallocated clusters are those of the image below it, and so on. Only the top is
/// written. One owner of its metadata, whatever the number of queues.
/// </summary>
public sealed class Qcow2Disk : IDetachableDisk
{
    private readonly IReadOnlyList<ImageLayer> _layers;
    private volatile Qcow2DiskOptions _options;
    private readonly MetadataThread? _metadata;
    private readonly Lock _growing = new();
    private volatile Shape _shape;
    private Action? _changed;
    private int _nodes;

    private Qcow2Disk(IReadOnlyList<ImageLayer> layers, Chain chain, Qcow2DiskOptions options)
    {
        _layers = layers;
        _options = options;
        State = new ImageState(chain);
        State.Freed.IsKept = options.KeepsFreed;
        ChainLayer top = chain.Layers[0];
        Path = top.File.Path;
        BlockGeometry file = top.File.Geometry;
        ClusterBytes = (int)top.Tables!.Geometry.ClusterSize;
        _shape = new(file with
        {
            CapacityBytes = top.DiskSize,
            DiscardGranularity = (uint)ClusterBytes, // less than a cluster is not given back
            Abilities = IsWritable ? DiskAbilities.Discard | DiskAbilities.WriteZeroes : DiskAbilities.None,
        });
        if (IsWritable)
        {
            Placement = new Placement(State);
            ZeroPlan = new ZeroPlan(State, Placement);
            PopulatePlan = new PopulatePlan(State, Placement);
            _metadata = new MetadataThread(State, options);
        }
    }

    /// <summary>The file of the top image.</summary>
    public string Path { get; }

    /// <inheritdoc/>
    public BlockGeometry Geometry => _shape.Geometry;

    /// <inheritdoc/>
    public bool HasSpace => State.Chain.Layers[0].File.HasSpace;

    /// <summary>What nodes and the metadata's thread share; its monitor is the disk's lock.</summary>
    internal ImageState State { get; }

    /// <summary>Where writes go; null when the disk is read only.</summary>
    internal Placement? Placement { get; }

    /// <summary>What zeroing does; null when the disk is read only.</summary>
    internal ZeroPlan? ZeroPlan { get; }

    /// <summary>What bringing content up does; null when the disk is read only.</summary>
    internal PopulatePlan? PopulatePlan { get; }

    /// <summary>What it was opened with.</summary>
    public Qcow2DiskOptions Options => _options;

    /// <summary>Called when the disk is about to end, before its nodes have to be gone: who has a node of a job gives it up.</summary>
    internal Action? Ending { get; set; }

    /// <summary>Images of the chain.</summary>
    public int Images => _layers.Count;

    /// <summary>Their files, the top first; they stay the disk's.</summary>
    public IReadOnlyList<ImageLayer> Layers => _layers;

    /// <summary>Bytes of a cluster of the top image.</summary>
    internal int ClusterBytes { get; }

    internal bool IsWritable => State.Chain.Layers[0].File.IsWritable;

    /// <summary>
    /// Opens a chain of images. It is read only when the file of the top image is. The disk owns the files from now on, also when this
    /// fails.
    /// </summary>
    /// <param name="layers">The images, the top first; only the last may be raw, and the first is qcow2.</param>
    /// <param name="options">Options.</param>
    /// <exception cref="BlockException">An image is none, damaged, or uses what is not supported; or the host failed.</exception>
    public static Qcow2Disk Open(IReadOnlyList<ImageLayer> layers, Qcow2DiskOptions? options = null)
    {
        try
        {
            return Over(layers, options);
        }
        catch
        {
            Close(layers);
            throw;
        }
    }

    /// <summary>The same; but when it fails the files are the caller's still.</summary>
    /// <exception cref="BlockException">As of <see cref="Open"/>.</exception>
    public static Qcow2Disk Over(IReadOnlyList<ImageLayer> layers, Qcow2DiskOptions? options = null)
    {
        options ??= new Qcow2DiskOptions();
        Chain chain = ChainReader.Read(layers, options.CacheBytes);
        try
        {
            return new Qcow2Disk(layers, chain, options);
        }
        catch
        {
            chain.Cache.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public IBlockNode CreateNode(IoLoop loop, int depth)
    {
        _metadata?.Start();
        Qcow2Node node = new(this, loop, depth);
        Interlocked.Increment(ref _nodes);
        return node;
    }

    /// <summary>A node that reaches up to <paramref name="end"/>, behind the end that was announced.</summary>
    internal Qcow2Node CreateHiddenNode(IoLoop loop, ulong end)
    {
        Qcow2Node node = new(this, loop, depth: 1) { HiddenEnd = end };
        Interlocked.Increment(ref _nodes);
        return node;
    }

    /// <inheritdoc/>
    public void OnGeometryChanged(Action changed) => _changed = changed;

    /// <inheritdoc/>
    public void Enlarge(ulong bytes)
    {
        if (_metadata is null)
        {
            throw new BlockException(BlockErrorKind.AccessDenied, $"disk {Path} is read-only and is not made larger") { Path = Path };
        }

        lock (_growing)
        {
            if (bytes == Geometry.CapacityBytes)
            {
                return;
            }

            new ImageGrowth(this, _metadata).Run(bytes);
            _shape = new(Geometry with { CapacityBytes = bytes });
            _changed?.Invoke();
        }
    }

    /// <summary>
    /// The top image names another backing file from now on, or none; that is stable when this returns. The open disk reads on through
    /// the images it was opened with. What the image would not see any more has to be in it, and stable.
    /// </summary>
    /// <param name="name">The file as the image shall name it; null: none.</param>
    /// <param name="format"><c>raw</c> or <c>qcow2</c>; null without a name.</param>
    /// <exception cref="BlockException">The header has no room for it, the image is stopped, or the host failed.</exception>
    public void ChangeBacking(string? name, string? format)
    {
        if (!IsWritable)
        {
            throw new InvalidOperationException("The disk is read only.");
        }

        _metadata!.Start();
        State.ChangeBacking(name, format);
    }

    /// <summary>
    /// Nobody reads the file by tables of an earlier time any more: what <see cref="Qcow2DiskOptions.KeepsFreed"/> kept comes back.
    /// </summary>
    internal void ReleaseFreed()
    {
        _options = _options with { KeepsFreed = false, TellsWrites = null };
        lock (State)
        {
            State.Freed.IsKept = false;
            Monitor.Pulse(State); // the metadata's thread alone waits for it
        }
    }

    /// <summary>
    /// Writes what is left of the metadata, gives reserved clusters back, closes the files. A failure here leaves leaks at most: a node's
    /// <see cref="IBlockNode.FlushAndCloseAsync"/> told whether the content is stable.
    /// </summary>
    public void Dispose()
    {
        End();
        Close(_layers);
    }

    /// <inheritdoc/>
    public DetachedDisk Detach()
    {
        End();
        return new DetachedDisk(_layers, () => Over(_layers, _options));
    }

    private void End()
    {
        Ending?.Invoke();
        if (_nodes != 0)
        {
            throw new InvalidOperationException("The disk still has nodes.");
        }

        _metadata?.Dispose();
        State.Chain.Cache.Dispose();
    }

    /// <summary>A node is gone.</summary>
    internal void Left() => Interlocked.Decrement(ref _nodes);

    /// <summary>An image contradicts itself.</summary>
    internal void Damaged(int layer, string what)
    {
        BlockException damage = ImageHeader.Damage(State.Chain.Layers[layer].File, what);
        bool tells;
        lock (State)
        {
            tells = State.Damage is null && _metadata is null;
            State.Stop(damage);
        }

        if (tells)
        {
            _options.Damaged?.Invoke(damage);
        }
    }

    // An object, so that threads see all of it or nothing.
    private sealed class Shape(in BlockGeometry geometry)
    {
        internal BlockGeometry Geometry { get; } = geometry;
    }

    private static void Close(IReadOnlyList<ImageLayer> layers)
    {
        foreach (ImageLayer layer in layers)
        {
            layer.File.Dispose();
        }
    }
}
