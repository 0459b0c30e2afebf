using Vmm.Interop;
using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests.Paging;

/// <summary>Guest memory with a real pager under it; the test's threads play guest and devices.</summary>
internal sealed class PagedGuest : IDisposable
{
    private readonly FileDescriptorHandle _device;

    internal PagedGuest(ulong bytes, ulong limit)
    {
        _device = UserfaultDevice.Open();
        Memory = VnodeMemory.Create(new VnodePlacement(0, new ByteSize(bytes), new ByteSize(4096), null, []), HostTopology.Unknown);
        Guest = new GuestMemory([Memory.Region(new GuestAddress(0), new ByteSize(bytes), 0)]);
        Pager = new MemoryPager(new PagerParts(
            _device, Store, [Memory], new ByteSize(limit), thread => thread.Start(), reason => Failure = reason));
        Pager.Serve(Guest.Ram);
    }

    /// <summary>A guest whose memory comes from saved pages.</summary>
    internal static PagedGuest Restored(SavedPattern saved, ByteSize limit)
    {
        PagedGuest guest = new(saved.Bytes, limit);
        guest.Pager.RestoreFrom([saved]);
        return guest;
    }

    /// <summary>Fails when a page does not begin as <see cref="SavedPattern"/> says.</summary>
    internal void RequireSaved(ulong at)
    {
        Assert.True(Guest.TryRead(new GuestAddress(at), out ulong value));
        Assert.True(value == SavedPattern.Of(at), $"the page at {at} holds {value:x}, not {SavedPattern.Of(at):x}");
    }

    /// <summary>A transfer.</summary>
    internal Acquired Acquire(PageLease lease, ulong at, ulong length, DmaAccess access, IPageWaiter? waiter = null) =>
        Guest.Dma.TryAcquire(new GuestRange(new GuestAddress(at), (uint)length), access, lease, waiter ?? Nobody.Instance);

    internal MemoryStore Store { get; } = new();

    internal VnodeMemory Memory { get; }

    internal GuestMemory Guest { get; }

    internal MemoryPager Pager { get; }

    internal string? Failure { get; private set; }

    public void Dispose()
    {
        Pager.Dispose();
        Memory.Dispose();
        _device.Dispose();
    }

    /// <summary>For transfers whose pages are there.</summary>
    private sealed class Nobody : IPageWaiter
    {
        internal static Nobody Instance { get; } = new();

        public void PagesReady(PageLease lease)
        {
        }
    }
}
