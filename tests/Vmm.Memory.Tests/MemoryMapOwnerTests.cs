using Vmm.Interop;

namespace Vmm.Memory.Tests;

/// <summary>Slots, RAM for devices, and the phases of a change.</summary>
public sealed class MemoryMapOwnerTests
{
    private const ulong Page = 4096, GiB = 1UL << 30, TiB = 1UL << 40;
    private const nint Host = 0x7000_0000;

    [Theory]
    [InlineData(1 * GiB, 1)]
    [InlineData(4 * TiB, 1)]
    [InlineData((4 * TiB) + 4096, 2)]
    [InlineData(9 * TiB, 3)]
    [InlineData(16 * TiB, 4)]
    public void A_region_of_any_size_is_in_slots_that_kvm_takes(ulong bytes, int slots)
    {
        GuestRegion[] regions =
        [
            new(new GuestAddress(0), new ByteSize(3 * GiB), 0x1000), new(new GuestAddress(4 * GiB), new ByteSize(bytes), Host)
        ];
        FakeSlots set = new();
        MemoryMapOwner map = new(new GuestRam(regions), set);
        Assert.Equal(Enumerable.Range(0, slots + 1).Select(i => (uint)i), map.Slots.Select(s => s.Number));
        // KVM_MEM_MAX_NR_PAGES is 2^31 - 1
        Assert.All(map.Slots, s => Assert.InRange(s.Region.Length.Bytes / 4096, 1UL, int.MaxValue - 1UL));
        ulong at = 4 * GiB;
        foreach (GuestRegion part in map.Slots.Skip(1).Select(s => s.Region))
        {
            Assert.Equal((at, Host + (nint)(at - (4 * GiB))), (part.Start.Value, part.HostAddress));
            at += part.Length;
        }

        Assert.Equal((4 * GiB) + bytes, at);
        Assert.Equal(map.Slots.Count, set.Now.Count);
    }

    [Fact]
    public void A_log_is_of_all_RAM_or_of_none_and_holds_what_guest_and_devices_write()
    {
        using VnodeMemory memory = VnodeMemory.Create(
            new VnodePlacement(0, new ByteSize(16 * Page), new ByteSize(Page), null, []), HostTopology.Unknown);
        GuestRam ram = new([Region(0, 16), memory.Region(new GuestAddress(32 * Page), new ByteSize(16 * Page), 0)]);
        FakeSlots slots = new();
        MemoryMapOwner map = new(ram, slots);
        map.AddMapping(Region(1024, 512), isReadOnly: false);
        slots.RefusesLogOf = 1;
        Assert.Throws<KernelException>(map.StartDirtyLog);
        Assert.All(map.Slots, slot => Assert.False(slot.IsLogged));
        Assert.Throws<InvalidOperationException>(() => ram.CollectWrittenPages(new(0), 1, new ulong[1]));
        slots.RefusesLogOf = null;
        map.StartDirtyLog();
        map.AddRamSlot(Region(64, 16)); // what comes is logged, too
        Assert.Equal(map.Slots, map.Slots.Select(slot => slot with { IsLogged = slot.Kind == MemorySlotKind.Ram }));
        Assert.Equal(slots.Now.Values.OrderBy(s => s.Number), map.Slots);
        Assert.True(new DmaSpace(ram).TryWrite(new GuestAddress(33 * Page), (byte)1));
        ulong[] bitmap = [ulong.MaxValue];
        map.TakeDirty(map.Slots[1], bitmap);
        Assert.Equal([(1UL << 5) | (1UL << 1)], bitmap);
        map.TakeDirty(map.Slots[1], bitmap);
        Assert.Equal([1UL << 5], bitmap);
        MemorySlot mapping = map.Slots.Single(s => s.Kind == MemorySlotKind.Mapping);
        Assert.Throws<InvalidOperationException>(() => map.TakeDirty(mapping, new ulong[8]));
        Assert.Throws<InvalidOperationException>(() => map.TakeDirty(map.Slots[0] with { Number = 77 }, bitmap));
        map.StopDirtyLog();
        Assert.All(map.Slots, slot => Assert.False(slot.IsLogged));
    }

    /// <summary>Random changes against a model of pages; the kernel and a listener refuse at random, and then nothing is changed.</summary>
    [Fact]
    public void Whatever_changes_slots_never_collide_and_listeners_know_the_ram_that_devices_see()
    {
        Random random = new(11);
        for (int round = 0; round < 60; round++)
        {
            GuestRam ram = new([Region(0, 16)]);
            FakeSlots slots = new();
            MemoryMapOwner map = new(ram, slots);
            Follower follower = new(ram), refusing = new(ram);
            ram.Listeners.Add(follower);
            ram.Listeners.Add(refusing);
            for (int step = 0; step < 200; step++)
            {
                ulong first = (ulong)random.Next(64), pages = (ulong)random.Next(1, 9);
                (HashSet<ulong> Ram, HashSet<ulong> Slots) before = (PagesOf(ram), slots.Pages);
                slots.Refuses = random.Next(8) == 0;
                refusing.Refuses = random.Next(8) == 0;
                GuestRegion region = Region(first, pages);
                bool done = Try(() => Change(map, random.Next(5), region));
                follower.Check();
                refusing.Check();
                Assert.Equal(map.Slots.Count, map.Slots.Select(s => s.Number).Distinct().Count());
                Assert.Equal(map.Slots.Sum(s => (long)(s.Region.Length.Bytes / Page)), slots.Pages.Count); // none overlaps
                Assert.Subset(slots.Pages, PagesOf(ram));
                if (!done)
                {
                    Assert.Equal(before, (PagesOf(ram), slots.Pages), new PageSets());
                }
            }
        }
    }

    [Fact]
    public void A_change_has_four_phases_and_a_refusal_is_taken_back()
    {
        GuestRam ram = new([Region(0, 16)]);
        MemoryMapOwner map = new(ram, new FakeSlots());
        Follower first = new(ram), second = new(ram) { Refuses = true };
        ram.Listeners.Add(first);
        ram.Listeners.Add(second);
        map.AddRamSlot(Region(16, 8));
        Assert.Empty(first.Log); // no RAM for devices yet
        Assert.Throws<KernelException>(() => map.AddRam(Region(16, 4)));
        second.Refuses = false;
        map.AddRam(Region(16, 4));
        Assert.Single(ram.RegionSpan.ToArray()); // joined
        map.RemoveRam(new GuestAddress(4 * Page), new ByteSize(2 * Page));
        Assert.Equal(["adding 16", "removed 16", "adding 16", "added 16", "removing 4", "removed 4"], first.Log);
        Assert.Equal(["adding 16", "added 16", "removing 4", "removed 4"], second.Log[1..]);
        ram.Listeners.Remove(first);
        map.AddRam(Region(4, 2));
        Assert.Equal(6, first.Log.Count);
    }

    [Fact]
    public void The_number_of_a_mapping_that_went_is_used_again_and_ram_keeps_its_own()
    {
        MemoryMapOwner map = new(new GuestRam([Region(0, 16)]), new FakeSlots());
        map.AddMapping(Region(32, 4), isReadOnly: true);
        map.AddRamSlot(Region(48, 4));
        Assert.Throws<ArgumentException>(() => map.AddMapping(Region(35, 4), isReadOnly: false));
        map.RemoveMapping(new GuestAddress(48 * Page)); // RAM: it stays
        Assert.Throws<ArgumentException>(() => map.AddRam(Region(32, 4))); // no RAM
        map.RemoveMapping(new GuestAddress(32 * Page));
        map.AddMapping(Region(64, 4), isReadOnly: false);
        Assert.Equal([(0u, 0UL), (1u, 64UL), (2u, 48UL)], map.Slots.Select(s => (s.Number, s.Region.Start.Value / Page)));
    }

    [Fact]
    public void Devices_transfer_to_a_mapping_that_may_be_written_and_from_any()
    {
        GuestRam ram = new([Region(0, 16)]);
        DmaSpace dma = new(ram);
        int hint = 0;
        MemoryMapOwner map = new(ram, new FakeSlots());
        Follower follower = new(ram);
        ram.Listeners.Add(follower);
        map.AddMapping(Region(32, 4), isReadOnly: false);
        map.AddMapping(Region(64, 4), isReadOnly: true);
        Assert.Contains(35UL, PagesOf(ram));
        foreach ((ulong page, bool mayWrite) in new[] { (33UL, true), (65UL, false), (3UL, true) })
        {
            GuestRange range = new(new GuestAddress(page * Page), 64);
            Assert.True(dma.Contains(range, DmaAccess.Read, ref hint));
            Assert.Equal(mayWrite, dma.Contains(range, DmaAccess.Write, ref hint));
        }

        Assert.Throws<ArgumentException>(() => map.RemoveRam(new GuestAddress(32 * Page), new ByteSize(2 * Page)));
        map.RemoveMapping(new GuestAddress(32 * Page));
        map.RemoveMapping(new GuestAddress(64 * Page));
        Assert.Equal(16, PagesOf(ram).Count);
        Assert.Equal(
            ["adding 32", "added 32", "adding 64", "added 64", "removing 32", "removed 32", "removing 64", "removed 64"], follower.Log);
    }

    private static void Change(MemoryMapOwner map, int kind, GuestRegion region)
    {
        switch (kind)
        {
            case 0:
                map.AddRamSlot(region);
                break;
            case 1:
                map.AddRam(region);
                break;
            case 2:
                map.RemoveRam(region.Start, region.Length);
                break;
            case 3:
                map.AddMapping(region, isReadOnly: false);
                break;
            default:
                map.RemoveMapping(region.Start);
                break;
        }
    }

    private static bool Try(Action change)
    {
        try
        {
            change();
            return true;
        }
        catch (Exception refused) when (refused is ArgumentException or KernelException)
        {
            return false;
        }
    }

    private static GuestRegion Region(ulong first, ulong pages) =>
        new(new GuestAddress(first * Page), new ByteSize(pages * Page), Host + (nint)(first * Page));

    private static HashSet<ulong> PagesOf(GuestRam ram) => [.. ram.RegionSpan.ToArray().SelectMany(Pages)];

    private static IEnumerable<ulong> Pages(GuestRegion region)
    {
        Assert.Equal(Host + (nint)region.Start.Value, region.HostAddress);
        return Enumerable.Range(0, (int)(region.Length.Bytes / Page)).Select(i => (region.Start.Value / Page) + (ulong)i);
    }

    private sealed class PageSets : IEqualityComparer<(HashSet<ulong> Ram, HashSet<ulong> Slots)>
    {
        public bool Equals((HashSet<ulong> Ram, HashSet<ulong> Slots) x, (HashSet<ulong> Ram, HashSet<ulong> Slots) y) =>
            x.Ram.SetEquals(y.Ram) && x.Slots.SetEquals(y.Slots);

        public int GetHashCode((HashSet<ulong> Ram, HashSet<ulong> Slots) value) => value.Ram.Count;
    }

    private sealed class FakeSlots : IMemorySlots
    {
        internal Dictionary<uint, MemorySlot> Now { get; } = [];

        internal bool Refuses { get; set; }

        internal HashSet<ulong> Pages => [.. Now.Values.SelectMany(s => MemoryMapOwnerTests.Pages(s.Region))];

        public void Set(in MemorySlot slot)
        {
            if (Refuses)
            {
                throw new KernelException("no slot", Errno.ENOMEM);
            }

            Now.Add(slot.Number, slot);
        }

        public void ChangeLog(in MemorySlot slot)
        {
            if (slot.IsLogged && slot.Number == RefusesLogOf)
            {
                throw new KernelException("no log", Errno.ENOMEM);
            }

            Assert.NotEqual(Now[slot.Number], slot);
            Now[slot.Number] = slot;
        }

        public void TakeLog(in MemorySlot slot, Span<ulong> bitmap)
        {
            bitmap.Clear();
            bitmap[0] = 1UL << 5; // what the guest wrote
        }

        internal uint? RefusesLogOf { get; set; }

        public void Remove(in MemorySlot slot) => Assert.True(Now.Remove(slot.Number));
    }

    /// <summary>Keeps its own account of RAM by what it is told.</summary>
    private sealed class Follower(GuestRam ram) : IMemoryListener
    {
        private readonly HashSet<ulong> _pages = PagesOf(ram);

        internal List<string> Log { get; } = [];

        internal bool Refuses { get; set; }

        public void Adding(in GuestRegion region)
        {
            Note("adding", region, visible: false);
            if (Refuses)
            {
                throw new KernelException("cannot pin it", Errno.ENOMEM);
            }

            _pages.UnionWith(Pages(region));
        }

        public void Added(in GuestRegion region) => Note("added", region, visible: true);

        public void Removing(in GuestRegion region) => Note("removing", region, visible: true);

        public void Removed(in GuestRegion region)
        {
            Note("removed", region, visible: false);
            _pages.ExceptWith(Pages(region));
        }

        internal void Check() => Assert.True(_pages.SetEquals(PagesOf(ram)));

        private void Note(string phase, GuestRegion region, bool visible)
        {
            Log.Add($"{phase} {region.Start.Value / Page}");
            Assert.Equal(visible, Pages(region).All(PagesOf(ram).Contains));
        }
    }
}
