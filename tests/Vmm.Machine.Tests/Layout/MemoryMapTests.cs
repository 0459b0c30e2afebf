using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Placement;

namespace Vmm.Machine.Tests.Layout;

public sealed class MemoryMapTests
{
    private const ulong MiB = 1UL << 20, GiB = 1UL << 30;

    [Fact]
    public void Ram_is_split_at_the_pci_hole_within_one_vnode()
    {
        MemoryMap map = MemoryMap.Create([new ByteSize(2 * GiB), new ByteSize(2 * GiB)], 40);
        Assert.Equal(
            [(0UL, 2 * GiB, 0, 0UL), (2 * GiB, GiB, 1, 0UL), (4 * GiB, GiB, 1, GiB)],
            map.Ram.Select(e => (e.Start.Value, e.Length.Bytes, e.Vnode, e.BackingOffset)));
        Assert.Equal(5 * GiB, map.PciWindow64.Start.Value);
    }

    [Fact]
    public void Random_vnodes_keep_their_bytes_and_never_touch_the_hole()
    {
        Random random = new(4);
        for (int round = 0; round < 500; round++)
        {
            ByteSize[] sizes = [.. Enumerable.Range(0, random.Next(1, 9)).Select(_ => ByteSize.MiB((ulong)random.Next(0, 4096)))];
            sizes[0] += ByteSize.MiB(1);
            MemoryMap map = MemoryMap.Create(sizes, 46);
            for (int vnode = 0; vnode < sizes.Length; vnode++)
            {
                Assert.Equal(sizes[vnode].Bytes, map.Ram.Where(e => e.Vnode == vnode).Aggregate(0UL, (sum, e) => sum + e.Length));
            }

            ulong end = 0;
            foreach (RamExtent extent in map.Ram)
            {
                Assert.True(extent.Start.Value >= end);
                end = extent.Start.Value + extent.Length;
                Assert.True(end <= MemoryMap.LowRamEnd || extent.Start.Value >= MemoryMap.HighRamStart);
            }

            Assert.True(map.PciWindow64.Start.Value >= end);
        }
    }

    [Theory]
    [InlineData(0xFFFF_FFFF_FFFF_F000UL)]
    [InlineData(1UL << 40)]
    [InlineData(4097UL)]
    [InlineData(0UL)]
    public void Impossible_sizes_are_refused(ulong size) =>
        Assert.Throws<HostMismatchException>(() => MemoryMap.Create([new ByteSize(size)], 40));
}
