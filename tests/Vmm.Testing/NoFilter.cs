using Vmm.Memory;

namespace Vmm.Testing;

/// <summary>
/// Takes the DMA filter out, for the proof that it matters: every lease is held at once, whether its pages are there or not, and may lose
/// them while it is held. Rings and discards go on to the pager.
/// </summary>
public static class NoFilter
{
    /// <summary>From now on transfers of devices do not ask for their pages.</summary>
    public static void TakeFrom(GuestMemory memory) => memory.Ram.Pages = new Unasked(memory.Ram.Pages!);

    private sealed class Unasked(IPageSource pager) : IPageSource
    {
        public Pinned TryPin(PageLease lease, IPageWaiter waiter) => Pinned.Yes;

        public void Unpin(PageLease lease)
        {
        }

        public bool AreHere(GuestRange range, nint address) => true;

        public void PinRing(nint address, ulong length) => pager.PinRing(address, length);

        public void UnpinRing(nint address, ulong length) => pager.UnpinRing(address, length);

        public ulong Discard(nint address, ulong length) => pager.Discard(address, length);
    }
}
