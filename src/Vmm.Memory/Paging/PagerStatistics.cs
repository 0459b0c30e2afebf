namespace Vmm.Memory.Paging;

/// <summary>What a pager did and where the guest's pages are; sizes in bytes, counts since the start.</summary>
public sealed record PagerStatistics
{
    /// <summary>Most bytes of guest memory that are resident.</summary>
    public required ulong LimitBytes { get; init; }

    /// <summary>Bytes of guest memory in this host's memory, staged ones among them.</summary>
    public required ulong ResidentBytes { get; init; }

    /// <summary>Bytes that are still in memory, but taken from the guest: the next access brings them back without a read.</summary>
    public required ulong StagedBytes { get; init; }

    /// <summary>Bytes of guest memory in the swap store.</summary>
    public required ulong SwappedBytes { get; init; }

    /// <summary>Bytes that transfers of devices use now.</summary>
    public required ulong PinnedBytes { get; init; }

    /// <summary>Most bytes that they used at once.</summary>
    public required ulong PinnedPeakBytes { get; init; }

    /// <summary>Transfers whose pages were all there.</summary>
    public required ulong Hits { get; init; }

    /// <summary>Transfers that waited for pages.</summary>
    public required ulong Misses { get; init; }

    /// <summary>Transfers that waited because others use too much.</summary>
    public required ulong BudgetWaits { get; init; }

    /// <summary>Times that a page was to go out, and did not because a transfer uses it.</summary>
    public required ulong RefusedEvictions { get; init; }

    /// <summary>Faults of the guest and of this process that were served.</summary>
    public required ulong Faults { get; init; }

    /// <summary>Those that found the page staged.</summary>
    public required ulong StagedFaults { get; init; }

    /// <summary>Faults of threads that copied few bytes in C, where they may wait: request headers and status bytes.</summary>
    public required ulong CopyFaults { get; init; }

    /// <summary>
    /// Faults of other threads of this process than vCPUs: an I/O thread, or a worker of io_uring, waited in the kernel for a page that its
    /// lease should have had. Always 0, unless somebody touches guest memory without a lease.
    /// </summary>
    public required ulong ForeignFaults { get; init; }

    /// <summary>Pages that went to the swap store.</summary>
    public required ulong PagesOut { get; init; }

    /// <summary>Pages that came back from there.</summary>
    public required ulong PagesIn { get; init; }

    /// <summary>Pages dropped without a write because all their bytes were zero.</summary>
    public required ulong ZeroPages { get; init; }

    /// <summary>Pages dropped without a write because nobody wrote them since they came from the swap store.</summary>
    public required ulong UnchangedPages { get; init; }

    /// <summary>Bytes of the swap file in use.</summary>
    public required ulong SwapFileBytes { get; init; }

    /// <summary>Why nothing goes out now; null when it does.</summary>
    public string? Stopped { get; init; }
}
