using Vmm.Interop;
using Vmm.Memory.Paging;

namespace Vmm.Memory;

/// <summary>Where the memory of one vnode comes from.</summary>
/// <param name="Vnode">Number of the vnode.</param>
/// <param name="Size">A multiple of the page size, not zero.</param>
/// <param name="PageSize">Host page size.</param>
/// <param name="Policy">Memory policy; null leaves it to the kernel.</param>
/// <param name="HostNodes">Host nodes for the policy.</param>
public sealed record VnodePlacement(int Vnode, ByteSize Size, ByteSize PageSize, MemoryPolicyMode? Policy, IReadOnlyList<int> HostNodes)
{
    /// <summary>
    /// How much of it comes from which host node, in order, each with <see cref="Policy"/>; null: the policy is about all of it. What they
    /// do not reach to comes from the last.
    /// </summary>
    public IReadOnlyList<NodeShare>? Shares { get; init; }
}

/// <summary>
/// The memory of one vnode: one memfd, mapped once, bound to its host nodes before first touch. It must outlive every user of its regions.
/// </summary>
public sealed class VnodeMemory : IMovablePages, IDisposable
{
    private static readonly byte[] s_zeros = new byte[ByteSize.BytesPerPage];

    private readonly MappedMemFd _memory;
    private nint[] _addresses = [];

    private VnodeMemory(VnodePlacement placement, MappedMemFd memory)
    {
        Placement = placement;
        _memory = memory;
    }

    /// <summary>What was asked for, with the policy it has now.</summary>
    public VnodePlacement Placement { get; private set; }

    /// <inheritdoc/>
    public ulong PageSize => Placement.PageSize;

    /// <inheritdoc/>
    public ulong Count => Placement.Size / Placement.PageSize;

    /// <summary>Creates the memory.</summary>
    /// <param name="placement">What is wanted.</param>
    /// <param name="host">The host's nodes.</param>
    /// <param name="sysfs">Where huge pages are counted.</param>
    /// <param name="within">Addresses to map it at, so that vnodes lie side by side; null for anywhere.</param>
    /// <param name="offset">Where in <paramref name="within"/>.</param>
    /// <param name="part">Which part of the vnode it is, for /proc/PID/maps; null for the vnode itself.</param>
    /// <param name="passed">The memory itself, of another process of this host: its pages stay where they are, its file keeps its policy.
    /// Owned from here on, also when this throws. Null: it is made.</param>
    /// <remarks>
    /// Huge pages are taken here and now: a reservation of theirs counts for the host, not for a node, so that what a policy asks for could
    /// be missing at first touch, which is a SIGBUS. Those of a part are not: who plugs it populates it (<see cref="TryPopulate"/>).
    /// </remarks>
    /// <exception cref="ArgumentException">The placement cannot be had on this host; the message says what is there.</exception>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public static VnodeMemory Create(
        VnodePlacement placement,
        HostTopology host,
        string sysfs = "/sys",
        AddressReservation? within = null,
        ulong offset = 0,
        string? part = null,
        FileDescriptorHandle? passed = null)
    {
        if (passed is not null)
        {
            return new VnodeMemory(placement, MappedMemFd.Adopt(
                passed, "vmm:vnode" + placement.Vnode + part, placement.Size, within, offset));
        }

        foreach (int node in placement.HostNodes)
        {
            if (!host.HasNode(node))
            {
                throw NoSuchNode(placement, host, node);
            }
        }

        bool takeAll = placement.PageSize > 4096 && part is null;
        if (takeAll)
        {
            RequireHugePages(placement, sysfs);
        }

        MappedMemFd memory = new("vmm:vnode" + placement.Vnode + part, placement.Size, placement.PageSize, within, offset);
        if (placement.Policy is { } mode && placement.HostNodes.Count > 0)
        {
            int errno = Bind(memory, mode, placement);
            // Without NUMA in the kernel there is only node 0, and everything is on it already.
            if (errno != 0 && !(errno == Errno.ENOSYS && !host.HasNuma))
            {
                memory.Dispose();
                throw new KernelException($"mbind vnode {placement.Vnode} to host nodes {NumberSet.Format(placement.HostNodes)}", errno);
            }
        }

        VnodeMemory vnode = new(placement, memory);
        if (takeAll && !vnode.TryPopulate(0, placement.Size, out ulong populated))
        {
            vnode.Dispose();
            throw new ArgumentException($"vnode {placement.Vnode}: only {populated / placement.PageSize} of "
                + $"{placement.Size / placement.PageSize} huge pages of {placement.PageSize >> 20} MiB could be had"
                + $"{(placement.HostNodes.Count > 0 ? $" from host nodes {NumberSet.Format(placement.HostNodes)}" : "")}: others took them "
                + "meanwhile; reserve more through nr_hugepages or use 4 KiB pages",
                    nameof(placement));
        }

        return vnode;
    }

    /// <summary>Its file, for a process that serves rings of the guest (vhost-user).</summary>
    public FileDescriptorHandle BackingFile => _memory.BackingFile;

    /// <inheritdoc/>
    public void SetPolicy(MemoryPolicyMode? mode, IReadOnlyList<int> hostNodes) =>
        Place(Placement with { Policy = mode, HostNodes = hostNodes, Shares = null });

    /// <summary>Gives the memory a policy and host nodes again that it had; pages that exist stay where they are.</summary>
    /// <param name="placement">What <see cref="Placement"/> was.</param>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public void Place(VnodePlacement placement)
    {
        int errno = placement.Policy is { } policy ? Bind(_memory, policy, placement) : _memory.Unbind();
        if (errno != 0)
        {
            throw new KernelException($"mbind vnode {Placement.Vnode} to host nodes {NumberSet.Format(placement.HostNodes)}", errno);
        }

        Placement = Placement with { Policy = placement.Policy, HostNodes = placement.HostNodes, Shares = placement.Shares };
    }

    /// <inheritdoc/>
    public void Locate(ulong first, Span<int> hostNodes)
    {
        if (_addresses.Length < hostNodes.Length)
        {
            _addresses = new nint[hostNodes.Length];
        }

        Paging?.Unstage(first, hostNodes.Length);

        _memory.Locate(first, PageSize, _addresses, hostNodes);
    }

    /// <inheritdoc/>
    public int Move(ReadOnlySpan<ulong> pages, int hostNode) => Paging is { } paging
        ? paging.Move(pages, hostNode) : MoveMapped(pages, hostNode);

    /// <summary>Takes the pages of a range from the host, from where the policy says.</summary>
    /// <param name="offset">First byte, a multiple of the page size.</param>
    /// <param name="length">Bytes, a multiple of the page size.</param>
    /// <param name="populated">How far it came, bytes.</param>
    /// <returns>False when the host has too few; some may have been taken then.</returns>
    public bool TryPopulate(ulong offset, ulong length, out ulong populated)
    {
        ulong slice = Math.Max(PageSize, 64UL << 20); // so that a process that is to end need not finish all of it
        for (populated = 0; populated < length;)
        {
            ulong bytes = Math.Min(slice, length - populated);
            if (HostPages.Populate((nint)((ulong)_memory.Address + offset + populated), bytes) != 0)
            {
                // The kernel does not say how far it came in this slice.
                while (populated < length && HostPages.Populate((nint)((ulong)_memory.Address + offset + populated), PageSize) == 0)
                {
                    populated += PageSize;
                }

                return populated == length;
            }

            populated += bytes;
        }

        return true;
    }

    /// <summary>The next range that was ever touched: false when there is none from there on.</summary>
    public bool TryFindData(ulong from, out ulong start, out ulong end) => Paging is { } paging
        ? paging.TryFindData(from, out start, out end) : _memory.TryFindData(from, out start, out end);

    /// <summary>
    /// Copies bytes out, for a save; nothing else writes them meanwhile. Whole pages stay where they are, also those that are out.
    /// </summary>
    public void CopyTo(ulong offset, Span<byte> destination)
    {
        if (Paging is null)
        {
            _memory.CopyTo(offset, destination);
        }
        else if ((offset | (uint)destination.Length) % PageSize == 0)
        {
            _ = AddressOf(offset, destination.Length);
            Paging.Read(offset, destination);
        }
        else
        {
            VnodePaging.Copy(AddressOf(offset, destination.Length), destination);
        }
    }

    /// <summary>Fills fresh memory, for a restore; the machine does not run yet. Several threads may fill different pages.</summary>
    /// <exception cref="KernelException">The host has no memory left.</exception>
    public void Fill(ulong offset, ReadOnlySpan<byte> source)
    {
        if (Paging is not null)
        {
            VnodePaging.Copy(source, AddressOf(offset, source.Length));
        }
        else if (PageSize == ByteSize.BytesPerPage)
        {
            _memory.WriteFile(offset, source); // no fault for each page, and none is cleared first
        }
        else
        {
            _memory.CopyFrom(offset, source); // files of huge pages are not written
        }
    }

    /// <summary>Makes pages of memory that is not paged zeros; the machine does not run yet. Pages of 4 KiB go back to the host.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public void Clear(ulong offset, ulong length)
    {
        if (PageSize == ByteSize.BytesPerPage)
        {
            if (offset > Placement.Size || length > Placement.Size - offset)
            {
                throw new ArgumentOutOfRangeException(nameof(offset), $"vnode {Placement.Vnode} has no {length} bytes at {offset}");
            }

            int errno = HostPages.Discard(_memory.Address + (nint)offset, length);
            if (errno != 0)
            {
                throw new KernelException($"madvise vnode {Placement.Vnode}", errno);
            }

            return;
        }

        for (ulong at = offset; at < offset + length; at += (uint)s_zeros.Length)
        {
            _memory.CopyFrom(at, s_zeros.AsSpan(0, (int)Math.Min((uint)s_zeros.Length, offset + length - at)));
        }
    }

    /// <summary>What pages this memory; null: nobody.</summary>
    internal VnodePaging? Paging { get; set; }

    /// <summary>Moves pages that nobody takes meanwhile.</summary>
    internal int MoveMapped(ReadOnlySpan<ulong> pages, int hostNode) => _memory.Move(pages, PageSize, hostNode);

    /// <summary>Where it is mapped in this process.</summary>
    internal nint HostAddress => _memory.Address;

    /// <summary>Reads what the file holds, without a touch of the mapping.</summary>
    /// <exception cref="KernelException">It cannot be read.</exception>
    internal void ReadFile(ulong offset, Span<byte> content) => _memory.ReadFile(offset, content);

    /// <summary>A piece of this memory as the guest sees it.</summary>
    public GuestRegion Region(GuestAddress start, ByteSize length, ulong offset) =>
        offset <= Placement.Size && length <= Placement.Size - offset
            ? new GuestRegion(start, length, (nint)((ulong)_memory.Address + offset), Placement.Vnode, Placement.PageSize)
            : throw new ArgumentOutOfRangeException(
                nameof(offset), $"vnode {Placement.Vnode} has {Placement.Size} bytes, not {offset} + {length}");

    /// <summary>Pages present per host node, by node number; asks the kernel page by page (4 KiB).</summary>
    public IReadOnlyDictionary<int, PageCount> ResidentPages()
    {
        const int Batch = 65536;
        SortedDictionary<int, PageCount> pages = [];
        ulong total = Placement.Size.Pages;
        for (ulong first = 0; first < total; first += Batch)
        {
            foreach (int node in _memory.NodesOfPages(first, (int)Math.Min(Batch, total - first)))
            {
                if (node >= 0)
                {
                    pages[node] = pages.GetValueOrDefault(node) + new PageCount(1);
                }
            }
        }

        return pages;
    }

    /// <inheritdoc/>
    public void Dispose() => _memory.Dispose();

    private nint AddressOf(ulong offset, int length) => offset <= Placement.Size && (ulong)length <= Placement.Size - offset
        ? _memory.Address + (nint)offset
        : throw new ArgumentOutOfRangeException(
            nameof(offset), $"vnode {Placement.Vnode} has {Placement.Size} bytes, not {offset} + {length}");

    private static int Bind(MappedMemFd memory, MemoryPolicyMode mode, VnodePlacement placement)
    {
        if (placement.Shares is not { Count: > 0 } shares)
        {
            return memory.Bind(mode, placement.HostNodes);
        }

        ulong offset = 0;
        for (int i = 0; i < shares.Count && offset < memory.Length; i++)
        {
            ulong rest = memory.Length - offset, length = i == shares.Count - 1 ? rest : Math.Min(shares[i].Bytes, rest);
            if (length > 0 && memory.Bind(mode, [shares[i].Node], offset, length) is not 0 and var errno)
            {
                return errno;
            }

            offset += length;
        }

        return 0;
    }

    private static ArgumentException NoSuchNode(VnodePlacement placement, HostTopology host, int node) =>
        new(
            $"vnode {placement.Vnode}: host node {node} does not exist; this host has "
                + $"{NumberSet.Format([.. host.Nodes.Select(n => n.Id)])}",
            nameof(placement));

    /// <summary>Refuses up front what would be a SIGBUS on first touch.</summary>
    private static void RequireHugePages(VnodePlacement placement, string sysfs)
    {
        string size = $"hugepages-{placement.PageSize / 1024}kB";
        IEnumerable<string> pools = placement.HostNodes.Count > 0 && Directory.Exists(Path.Combine(sysfs, "devices/system/node"))
            ? placement.HostNodes.Select(n => Path.Combine(sysfs, $"devices/system/node/node{n}/hugepages", size))
            : [Path.Combine(sysfs, "kernel/mm/hugepages", size)];
        ulong free = 0;
        foreach (string file in pools.Select(p => Path.Combine(p, "free_hugepages")))
        {
            if (File.Exists(file) && ulong.TryParse(File.ReadAllText(file).Trim(), out ulong count))
            {
                free += count;
            }
        }

        ulong needed = placement.Size / placement.PageSize;
        if (free < needed)
        {
            throw new ArgumentException(
                $"vnode {placement.Vnode}: {needed} huge pages of {placement.PageSize >> 20} MiB are needed, {free} are free; reserve more "
                    + "through nr_hugepages or use 4 KiB pages",
                nameof(placement));
        }
    }
}
