using Vmm.Machine.Run;
using Vmm.Memory;

namespace Vmm.Machine.Tests.Run;

public sealed class RamSlotsTests
{
    private const ulong GiB = 1UL << 30, TiB = 1UL << 40;

    [Theory]
    [InlineData(1 * GiB, 1)]
    [InlineData(4 * TiB, 1)]
    [InlineData((4 * TiB) + 4096, 2)]
    [InlineData(9 * TiB, 3)]
    [InlineData(16 * TiB, 4)]
    public void A_region_of_any_size_is_in_slots_that_kvm_takes(ulong bytes, int slots)
    {
        const nint host = 0x7000_0000;
        GuestRegion[] regions = [new(new GuestAddress(0), new ByteSize(3 * GiB), 0x1000), new(new GuestAddress(4 * GiB), new ByteSize(bytes), host)];
        List<(uint Slot, ulong Guest, ulong Bytes, nint Host)> set = [];
        RamSlots.Set(regions, (slot, guest, length, address) => set.Add((slot, guest, length, address)));
        Assert.Equal((uint)set.Count, RamSlots.Count(regions));
        Assert.Equal(Enumerable.Range(0, slots + 1).Select(i => (uint)i), set.Select(s => s.Slot));
        Assert.All(set, s => Assert.InRange(s.Bytes / 4096, 1UL, int.MaxValue - 1UL)); // KVM_MEM_MAX_NR_PAGES is 2^31 - 1
        ulong at = 4 * GiB;
        foreach ((_, ulong guest, ulong length, nint address) in set.Skip(1))
        {
            Assert.Equal((at, host + (nint)(at - (4 * GiB))), (guest, address));
            at += length;
        }

        Assert.Equal((4 * GiB) + bytes, at);
    }
}
