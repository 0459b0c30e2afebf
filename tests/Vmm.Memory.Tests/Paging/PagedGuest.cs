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
}
