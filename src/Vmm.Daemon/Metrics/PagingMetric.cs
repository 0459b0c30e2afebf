using Vmm.Contracts.Control;

namespace Vmm.Daemon.Metrics;

/// <summary>A family of <c>/metrics</c> about VMs with a resident limit.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Help">What it tells.</param>
/// <param name="Read">Its value.</param>
/// <param name="IsGauge">It goes up and down.</param>
internal sealed record PagingMetric(string Name, string Help, Func<PagingInfo, double> Read, bool IsGauge = false)
{
    /// <summary>All of them.</summary>
    internal static IReadOnlyList<PagingMetric> All { get; } =
    [
        new("vmm_vm_paging_limit_bytes", "Most guest memory that is resident", p => p.LimitBytes, IsGauge: true),
        new("vmm_vm_paging_resident_bytes", "Guest memory in the host's memory", p => p.ResidentBytes, IsGauge: true),
        new("vmm_vm_paging_staged_bytes", "Of that: taken from the guest, not yet given up", p => p.StagedBytes, IsGauge: true),
        new("vmm_vm_paging_swapped_bytes", "Guest memory in the swap file", p => p.SwappedBytes, IsGauge: true),
        new("vmm_vm_paging_pinned_bytes", "Guest memory that transfers of devices use", p => p.PinnedBytes, IsGauge: true),
        new("vmm_vm_paging_pinned_peak_bytes", "Most that they used at once", p => p.PinnedPeakBytes, IsGauge: true),
        new("vmm_vm_paging_swap_file_bytes", "Bytes of the swap file in use", p => p.SwapFileBytes, IsGauge: true),
        new("vmm_vm_paging_stopped", "1 while no page goes out", p => p.Stopped is null ? 0 : 1, IsGauge: true),
        new("vmm_vm_paging_hits_total", "Transfers whose pages were all there", p => p.Hits),
        new("vmm_vm_paging_misses_total", "Transfers that waited for pages", p => p.Misses),
        new("vmm_vm_paging_budget_waits_total", "Transfers that waited because others use too much", p => p.BudgetWaits),
        new("vmm_vm_paging_refused_evictions_total", "Pages that did not go out because a transfer uses them", p => p.RefusedEvictions),
        new("vmm_vm_paging_faults_total", "Page faults of the guest and its worker", p => p.Faults),
        new("vmm_vm_paging_staged_faults_total", "Those that found the page in memory", p => p.StagedFaults),
        new("vmm_vm_paging_copy_faults_total", "Faults of I/O threads at a header or status, where they may wait", p => p.CopyFaults),
        new("vmm_vm_paging_foreign_faults_total", "Faults of I/O threads anywhere else: always 0", p => p.ForeignFaults),
        new("vmm_vm_paging_pages_out_total", "Pages written to the swap file", p => p.PagesOut),
        new("vmm_vm_paging_pages_in_total", "Pages read from it", p => p.PagesIn),
        new("vmm_vm_paging_unchanged_pages_total", "Pages that needed no write: not written since they were read", p => p.UnchangedPages),
        new("vmm_vm_paging_zero_pages_total", "Pages that needed no write: all zero", p => p.ZeroPages),
    ];
}
