using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Testing;

/// <summary>
/// Plays the pager: a range of guest memory is away until <see cref="PageIn"/>, and whoever acquires it waits. Any thread.
/// </summary>
public sealed class FakePager
{
    private readonly Away _away = new();

    public FakePager(GuestMemory memory) => memory.Ram.Pages = _away;

    /// <summary>How many acquires wait.</summary>
    public int Waiting => _away.Count;

    /// <summary>These pages are away from now on.</summary>
    public void PageOut(ulong at, ulong length) => _away.Set(at, at + length);

    /// <summary>All pages are there again: who waits is told.</summary>
    public void PageIn() => _away.PageIn();

    private sealed class Away : IPageSource
    {
        private readonly Lock _gate = new();
        private readonly List<(PageLease Lease, IPageWaiter Waiter)> _waiting = [];
        private ulong _from, _to;

        public int Count
        {
            get
            {
                lock (_gate)
                {
                    return _waiting.Count;
                }
            }
        }

        public void Set(ulong from, ulong to)
        {
            lock (_gate)
            {
                (_from, _to) = (from, to);
            }
        }

        public void PageIn()
        {
            List<(PageLease Lease, IPageWaiter Waiter)> told;
            lock (_gate)
            {
                _from = _to = 0;
                told = [.. _waiting];
                _waiting.Clear();
            }

            told.ForEach(w => w.Waiter.PagesReady(w.Lease));
        }

        public Pinned TryPin(PageLease lease, IPageWaiter waiter)
        {
            lock (_gate)
            {
                foreach (GuestRange range in lease.NamedRanges)
                {
                    if (range.Address.Value < _to && range.Address.Value + range.Length > _from)
                    {
                        _waiting.Add((lease, waiter));
                        return Pinned.Later;
                    }
                }

                return Pinned.Yes;
            }
        }

        public void Unpin(PageLease lease)
        {
        }

        public bool AreHere(GuestRange range, nint address)
        {
            lock (_gate)
            {
                return range.Address.Value >= _to || range.Address.Value + range.Length <= _from;
            }
        }

        public void PinRing(nint address, ulong length)
        {
        }

        public void UnpinRing(nint address, ulong length)
        {
        }

        public ulong Discard(nint address, ulong length) => HostPages.Discard(address, length) == 0 ? length : 0;
    }
}
