using Vmm.Contracts.Rest;
using Vmm.Daemon.Moves;
using Vmm.Storage;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>The hashes of the recovery site's newest point: fetched to be cut against, or compared with those here.</summary>
/// <param name="vm">The VM's id.</param>
/// <param name="peer">The recovery site.</param>
internal sealed class PeerTrees(string vm, IReplicaPeer peer)
{
    private const int ExtentBytes = 65536, Part = ReplicaPeer.MostLeaves, Named = 8;

    /// <summary>Makes the hashes here those of the other site. Points that wait have to be gone.</summary>
    /// <param name="site">The site, with the roots of its newest point.</param>
    /// <param name="spool">Where they go.</param>
    /// <param name="progress">Hears from 0 to 1 how far it is.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="PeerException">The site lies, or does not answer.</exception>
    /// <exception cref="BlockException">They cannot be written.</exception>
    internal async Task FetchAsync(ReplicaSiteInfo site, ReplicaSpool spool, Action<double> progress, CancellationToken cancellation)
    {
        Guid point = Guid.Parse(site.Newest);
        Progress told = new(site.Roots, progress);
        foreach (ReplicaPointDisk disk in site.Roots)
        {
            using TreeBuilder tree = new(spool.TreeOf(RequireName(disk)), point, disk.Bytes);
            for (ulong at = 0, end = Extents(disk.Bytes); at < end;)
            {
                byte[] leaves = await LeavesAsync(disk, at, end, cancellation).ConfigureAwait(false);
                tree.Add(leaves);
                at += (ulong)(leaves.Length / ReplicaPeer.HashBytes);
                told.Add(leaves.Length / ReplicaPeer.HashBytes);
            }

            try
            {
                tree.Complete(disk.Root);
            }
            catch (BlockException cause) when (cause.Kind == BlockErrorKind.Damaged)
            {
                throw new PeerException("peer-lies", $"hashes of {disk.Name} have another root than the site told: {cause.Message}", cause);
            }
        }
    }

    /// <summary>Compares the hashes here with those of the site's newest point: roots, and where those differ all.</summary>
    /// <param name="site">The site.</param>
    /// <param name="spool">The hashes here, which are of that point.</param>
    /// <param name="progress">Hears from 0 to 1 how far it is.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <returns>What differs, for people; empty: nothing does.</returns>
    /// <exception cref="PeerException">The site lies, or does not answer.</exception>
    /// <exception cref="BlockException">The hashes here are not sound.</exception>
    internal async Task<IReadOnlyList<string>> CompareAsync(
        ReplicaSiteInfo site, ReplicaSpool spool, Action<double> progress, CancellationToken cancellation)
    {
        Progress told = new(site.Roots, progress);
        List<string> differ = [];
        foreach (ReplicaPointDisk disk in site.Roots)
        {
            using TreeFile tree = TreeFile.Open(spool.TreeOf(RequireName(disk)));
            bool isSame = tree.DiskBytes == disk.Bytes && string.Equals(tree.Root, disk.Root, StringComparison.OrdinalIgnoreCase);
            if (!isSame)
            {
                differ.Add(tree.DiskBytes != disk.Bytes
                    ? $"{disk.Name}: {tree.DiskBytes} bytes here, {disk.Bytes} there"
                    : await DiffersAsync(disk, tree, told, cancellation).ConfigureAwait(false));
            }
        }

        return differ;
    }

    private async Task<string> DiffersAsync(ReplicaPointDisk disk, TreeFile tree, Progress told, CancellationToken cancellation)
    {
        ulong differing = 0;
        List<ulong> first = [];
        byte[] own = new byte[Part * ReplicaPeer.HashBytes];
        for (ulong at = 0, end = Extents(disk.Bytes); at < end;)
        {
            byte[] there = await LeavesAsync(disk, at, end, cancellation).ConfigureAwait(false);
            int count = tree.ReadLeaves(at, own.AsSpan(0, there.Length));
            for (int i = 0; i < count; i++)
            {
                Range leaf = (i * ReplicaPeer.HashBytes)..((i + 1) * ReplicaPeer.HashBytes);
                if (!own.AsSpan(leaf).SequenceEqual(there.AsSpan(leaf)))
                {
                    differing++;
                    if (first.Count < Named)
                    {
                        first.Add(at + (ulong)i);
                    }
                }
            }

            at += (ulong)count;
            told.Add(count);
        }

        string more = differing > Named ? ", …" : "";
        return $"{disk.Name}: {differing} extents of 64 KiB differ ({string.Join(", ", first)}{more})";
    }

    private Task<byte[]> LeavesAsync(ReplicaPointDisk disk, ulong from, ulong end, CancellationToken cancellation) =>
        peer.LeavesAsync(vm, disk.Name, from, (int)Math.Min(Part, end - from), cancellation);

    private static ulong Extents(ulong bytes) => (bytes + ExtentBytes - 1) / ExtentBytes;

    // It becomes the name of a file.
    private static string RequireName(ReplicaPointDisk disk) =>
        disk.Name.All(letter => char.IsAsciiLetterOrDigit(letter) || letter is '-' or '_') ? disk.Name
            : throw new PeerException("peer-lies", "the recovery site has a disk whose name is none");

    private sealed class Progress(IReadOnlyList<ReplicaPointDisk> disks, Action<double> progress)
    {
        private readonly double _all = disks.Sum(disk => (double)Extents(disk.Bytes));
        private double _done;

        internal void Add(int extents) => progress((_done += extents) / _all);
    }
}
