namespace Vmm.Storage.Qcow2;

/// <summary>
/// Finds free clusters of the top image and gives them refcount 1, durably, before anything may name them; and gives them back. On the
/// metadata's thread.
/// </summary>
internal sealed class Reservation
{
    private const ulong MostBytes = 64 << 20; // a run that a crash leaks at worst
    private const int MostClusters = 1024, FewestClusters = 4, BlocksPerLook = 8;

    private readonly IImageFile _file;
    private readonly Qcow2Geometry _image;
    private readonly RefcountTable _refcounts;
    private readonly ImageState _state;
    private readonly byte[] _zeros = new byte[64 * 1024];
    private ulong _next = 1; // where the next look for a free cluster begins; the header is cluster 0
    private int _batch = 16;

    /// <exception cref="BlockException">The host failed.</exception>
    internal Reservation(ImageState state, IImageFile file)
    {
        Qcow2Header header = state.Chain.Layers[0].Header!;
        _state = state;
        _file = file;
        _image = header.Geometry;
        _refcounts = new RefcountTable(file, header);
    }

    private int MostPerRun => (int)Math.Clamp(MostBytes >> _image.ClusterBits, FewestClusters, MostClusters);

    /// <summary>Clusters that a pool should not fall below for long.</summary>
    internal int LowWater => Math.Max(FewestClusters, Math.Min(_batch, MostPerRun) / 4);

    /// <summary>Reserves clusters side by side; durable when this returns. They read as zeros.</summary>
    /// <param name="isMetadata">True when a table or the header lies in the cluster of that number.</param>
    /// <exception cref="BlockException">The host failed, has no space, or the image is damaged.</exception>
    internal ClusterRun Reserve(Func<ClusterRun, ulong?> isMetadata)
    {
        try
        {
            _batch = Math.Min(2 * _batch, MostPerRun);
            ClusterRun run = FindFree(Math.Min(_batch, MostPerRun));
            if (isMetadata(run) is { } cluster)
            {
                throw ImageHeader.Damage(_file, $"cluster {cluster} holds metadata, and its refcount is 0");
            }

            Clear(run);
            for (ulong cluster0 = run.First; cluster0 < run.End; cluster0++)
            {
                _refcounts.Set(cluster0, 1);
            }

            _refcounts.Store();
            _file.Flush();
            return run;
        }
        catch
        {
            _refcounts.Forget();
            throw;
        }
    }

    /// <summary>
    /// Reserves so many clusters side by side behind the end of the file, for a table that has to be in one piece; durable when this
    /// returns.
    /// </summary>
    /// <param name="clusters">How many.</param>
    /// <param name="isMetadata">True when a table or the header lies in the cluster of that number.</param>
    /// <exception cref="BlockException">The host failed, has no space, or the image is damaged.</exception>
    internal ClusterRun ReserveTable(int clusters, Func<ClusterRun, ulong?> isMetadata)
    {
        try
        {
            ClusterRun run = FindBehindEnd(clusters);
            if (isMetadata(run) is { } cluster)
            {
                throw ImageHeader.Damage(_file, $"cluster {cluster} holds metadata, and its refcount is 0");
            }

            for (ulong each = run.First; each < run.End; each++)
            {
                _refcounts.Set(each, 1);
            }

            _refcounts.Store();
            _file.Grow(run.End << _image.ClusterBits);
            _file.Flush();
            return run;
        }
        catch
        {
            _refcounts.Forget();
            throw;
        }
    }

    // Refcount blocks that are missing are appended, too: then it is looked for behind them.
    private ClusterRun FindBehindEnd(int clusters)
    {
        ulong first = FirstFree(_image.ClustersFor(_file.Length), ulong.MaxValue), at = first;
        while (at < first + (uint)clusters)
        {
            if (IsUsed(at))
            {
                first = at + 1;
            }
            else if (!_refcounts.HasBlock(at))
            {
                _refcounts.AddBlock(at);
                first = at = FirstFree(_image.ClustersFor(_file.Length), ulong.MaxValue);
                continue;
            }

            at++;
        }

        return new ClusterRun(first, clusters);
    }

    /// <summary>
    /// One user of clusters is gone. Those without any are free; as many as are wanted stay reserved.
    /// </summary>
    /// <param name="runs">Clusters, as often as they lost a user.</param>
    /// <param name="keep">Most clusters that stay reserved.</param>
    /// <param name="kept">Gets those; they read as zeros.</param>
    /// <exception cref="BlockException">The host failed, or the image is damaged.</exception>
    internal void Release(List<ClusterRun> runs, int keep, List<ClusterRun> kept)
    {
        try
        {
            foreach (ClusterRun run in runs)
            {
                for (ulong cluster = run.First; cluster < run.End; cluster++)
                {
                    ReleaseOne(cluster, ref keep, kept);
                }
            }

            _refcounts.Store();
        }
        catch
        {
            _refcounts.Forget();
            throw;
        }
    }

    /// <summary>Refcount blocks and the table itself: clusters that are metadata.</summary>
    internal bool Holds(ClusterRun run, out ulong cluster)
    {
        (ulong offset, uint clusters) = _refcounts.Place;
        ulong table = _image.ClusterOf(offset);
        cluster = Math.Max(run.First, table);
        if (cluster < run.End && cluster < table + clusters)
        {
            return true;
        }

        foreach (ulong block in _refcounts.Blocks)
        {
            cluster = _image.ClusterOf(block);
            if (block != 0 && cluster >= run.First && cluster < run.End)
            {
                return true;
            }
        }

        return false;
    }

    private void ReleaseOne(ulong cluster, ref int keep, List<ClusterRun> kept)
    {
        ulong users = _refcounts.Get(cluster);
        if (users == 0)
        {
            throw ImageHeader.Damage(_file, $"cluster {cluster} was in use, and its refcount is 0");
        }

        if (users > 1)
        {
            _refcounts.Set(cluster, users - 1);
            return;
        }

        bool isZero = _file.TryPunch(cluster << _image.ClusterBits, _image.ClusterSize);
        if (isZero && keep > 0)
        {
            keep--;
            kept.Add(new ClusterRun(cluster, 1));
            return;
        }

        _refcounts.Set(cluster, 0);
        _next = Math.Min(_next, cluster);
    }

    /// <summary>Clusters that were reserved and never used are free again.</summary>
    /// <exception cref="BlockException">The host failed: they stay leaks.</exception>
    internal void GiveBack(List<ClusterRun> runs)
    {
        foreach (ClusterRun run in runs)
        {
            for (ulong cluster = run.First; cluster < run.End; cluster++)
            {
                _refcounts.Set(cluster, 0);
            }
        }

        _refcounts.Store();
    }

    // The first free clusters, within one refcount block; behind the end of the file when a look at some blocks finds none before it.
    private ClusterRun FindFree(int wanted)
    {
        ulong end = _image.ClustersFor(_file.Length), at = FirstFree(_next, end);
        if (at < end)
        {
            _next = at;
        }
        else
        {
            at = FirstFree(end, ulong.MaxValue);
        }

        while (!_refcounts.HasBlock(at))
        {
            _refcounts.AddBlock(at);
            at = FirstFree(at, ulong.MaxValue);
        }

        int count = 1;
        while (count < wanted && ((at + (uint)count) & (_refcounts.PerBlock - 1)) != 0 && !IsUsed(at + (uint)count))
        {
            count++;
        }

        _next = at < end || _next == end ? at + (uint)count : _next;
        return new ClusterRun(at, count);
    }

    // The first free cluster of [from, to), as far as a look at some blocks tells; "to", and the next look goes on behind, when none is.
    private ulong FirstFree(ulong from, ulong to)
    {
        ulong lookEnd = Math.Min(to, from + (BlocksPerLook * _refcounts.PerBlock));
        for (ulong at = from; at < lookEnd; at++)
        {
            if (!IsUsed(at))
            {
                return at;
            }
        }

        if (to == ulong.MaxValue)
        {
            throw ImageHeader.Damage(_file, $"all clusters from {from} to {lookEnd}, behind the end of the file, have refcounts");
        }

        _next = lookEnd;
        return to;
    }

    private bool IsUsed(ulong cluster) => _refcounts.Get(cluster) != 0;

    // What lies in them is not the disk's: they have to read as zeros.
    private void Clear(ClusterRun run)
    {
        ulong start = run.First << _image.ClusterBits, end = run.End << _image.ClusterBits, old = Math.Min(end, _file.Length);
        if (start < old && !_file.TryPunch(start, old - start))
        {
            for (ulong at = start; at < old; at += (uint)_zeros.Length)
            {
                _file.Write(_zeros.AsSpan(0, (int)Math.Min((uint)_zeros.Length, old - at)), at);
            }
        }

        _file.Grow(end);
    }

    /// <summary>The header, the L1 table, a table of snapshots: clusters that are metadata whatever happens.</summary>
    internal bool IsFixed(ClusterRun run, out ulong cluster)
    {
        Qcow2Header header;
        lock (_state)
        {
            header = _state.Chain.Layers[0].Header!;
        }

        ulong l1 = _image.ClusterOf(header.L1Offset), l1End = l1 + _image.ClustersFor(header.L1Size * 8ul);
        cluster = Math.Max(run.First, l1);
        if (cluster < run.End && cluster < l1End)
        {
            return true;
        }

        cluster = 0;
        return run.First == 0;
    }
}
