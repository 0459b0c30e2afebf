using Vmm.Contracts.Control;
using Vmm.Memory;
using Vmm.Memory.Paging;

namespace Vmm.Worker;

/// <summary>The pager of the VM of this worker, as the daemon asks for it.</summary>
/// <param name="pager">The pager; null: all memory may be resident.</param>
/// <param name="look">How often it is looked whether pages go out; null: each second.</param>
internal sealed class HostedPaging(Func<IMemoryPager?> pager, TimeSpan? look = null) : IDisposable
{
    private readonly TimeSpan _look = look ?? TimeSpan.FromSeconds(1);

    private Timer? _watch;
    private string? _told; // why nothing goes out, as it was told last; only the timer's thread

    /// <summary>Where pages are; null: all memory may be resident.</summary>
    internal PagingInfo? Info
    {
        get
        {
            if (pager() is not { } now)
            {
                return null;
            }

            PagerStatistics said = now.Statistics;
            return new PagingInfo(
                said.LimitBytes, now.MinimumLimit, said.ResidentBytes, said.StagedBytes, said.SwappedBytes, said.PinnedBytes,
                said.PinnedPeakBytes, said.Hits, said.Misses, said.BudgetWaits, said.RefusedEvictions, said.Faults, said.StagedFaults,
                said.PagesOut, said.PagesIn, said.ZeroPages, said.SwapFileBytes, said.Stopped,
                said.CopyFaults, said.ForeignFaults, said.UnchangedPages);
        }
    }

    /// <summary>Changes the resident limit.</summary>
    /// <exception cref="RequestException">There is none, or it is below what the pager can do.</exception>
    internal void SetLimit(ulong bytes)
    {
        IMemoryPager now = pager() ?? throw new RequestException(
            ControlCodes.NoResidentLimit, "the VM has no resident limit: its spec gives it one (memory: {resident: 25%}) before its start");
        try
        {
            now.SetResidentLimit(new ByteSize(bytes));
        }
        catch (ArgumentOutOfRangeException cause)
        {
            throw new RequestException(
                ControlCodes.MemoryImpossible, $"a resident limit of {new ByteSize(bytes)} is below {now.MinimumLimit}, the least", cause);
        }
    }

    /// <summary>Calls the handler when pages go out no more, with the reason, and with null when they do again.</summary>
    internal void OnStopped(Action<string?> told)
    {
        if (pager() is { } now)
        {
            _watch = new Timer(_ => Look(now, told), null, _look, Timeout.InfiniteTimeSpan);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Interlocked.Exchange(ref _watch, null)?.Dispose();

    /// <summary>One look; the next is a second later.</summary>
    private void Look(IMemoryPager now, Action<string?> told)
    {
        string? stopped = now.Statistics.Stopped;
        if (stopped is null != _told is null)
        {
            told(stopped);
        }

        _told = stopped;
        try
        {
            Volatile.Read(ref _watch)?.Change(_look, Timeout.InfiniteTimeSpan);
        }
        catch (ObjectDisposedException)
        {
            // The VM is over.
        }
    }
}
