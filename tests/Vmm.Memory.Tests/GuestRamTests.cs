namespace Vmm.Memory.Tests;

/// <summary>Which pages devices wrote.</summary>
public sealed class GuestRamTests : IDisposable
{
    private const ulong High = 0x1_0000_0000;
    private static readonly (ulong Start, int Length)[] s_layout = [(0, 0x200_000), (0x7ff_f000, 0x2000), (High, 0x100_000)];
    private readonly LeaseHost _host = new();
    private readonly GuestMemory _memory;

    public GuestRamTests() => _memory = new GuestMemory(_host.Regions(together: false, s_layout));

    private GuestRam Ram => _memory.Ram;

    public void Dispose() => _host.Dispose();

    [Fact]
    public void The_pages_of_write_leases_and_only_these_are_collected_once()
    {
        Random random = new(3);
        HashSet<ulong> model = [];
        PageLease lease = new(3);
        Ram.StartTrackingWrites();
        for (int round = 0; round < 300; round++)
        {
            for (int i = random.Next(6); i > 0; i--)
            {
                GuestRange[] ranges = [.. Enumerable.Range(0, 3).Select(_ => Range(random))];
                DmaAccess access = (DmaAccess)random.Next(2);
                Assert.Equal(Acquired.Ready, _memory.Dma.TryAcquire(ranges, access, lease, _host));
                lease.Release();
                foreach (GuestRange range in access == DmaAccess.Write ? ranges.Where(r => r.Length > 0) : [])
                {
                    for (ulong page = range.Address.Value >> 12; page <= (range.Address.Value + range.Length - 1) >> 12; page++)
                    {
                        model.Add(page);
                    }
                }
            }

            (ulong start, int length) = s_layout[random.Next(3)];
            ulong from = (start >> 12) + (ulong)random.Next(length >> 12),
                pages = (ulong)random.NextInt64((long)((start + (ulong)length) >> 12) - (long)from + 1);
            HashSet<ulong> expected = [.. model.Where(p => p >= from && p < from + pages)];
            Assert.Equal(expected.Order(), Collect(from, pages).Order());
            model.ExceptWith(expected);
        }
    }

    [Fact]
    public void A_lease_marks_at_release_whatever_became_of_the_regions_in_between()
    {
        PageLease early = new(1), late = new(1);
        Acquire(early, 0x1000);
        Ram.StartTrackingWrites();
        Acquire(late, High);
        GuestRegion[] left = [Ram.RegionSpan[0], .. _host.Regions(together: false, (0x2_0000_0000, 0x3000))];
        _memory.ReplaceRegions(left);
        Assert.Empty(Collect(0, 16));
        early.Release();
        late.Release();
        Assert.Equal([1UL], Collect(0, 16));
        Assert.Equal([High >> 12], Collect(High >> 12, 16));
        Acquire(early, 0x2_0000_2000);
        early.Release();
        Assert.Equal([0x20_0002UL], Collect(0x20_0000, 16));
    }

    [Fact]
    public void Tracking_begins_clean_and_nothing_can_be_collected_without_it()
    {
        PageLease lease = new(1);
        Ram.StartTrackingWrites();
        Acquire(lease, 0x5000);
        lease.Release();
        Ram.StartTrackingWrites();
        Ram.StopTrackingWrites();
        Assert.False(Ram.IsTrackingWrites);
        Assert.Throws<InvalidOperationException>(() => Collect(0, 16));
        Acquire(lease, 0x6000);
        lease.Release();
        Ram.StartTrackingWrites();
        Assert.Empty(Collect(0, 512));
        Assert.Throws<ArgumentException>(() => Ram.CollectWrittenPages(new(0x1001), 1, new ulong[1]));
        Assert.Throws<ArgumentException>(() => Ram.CollectWrittenPages(new(0x1000), 65, new ulong[1]));
    }

    [Fact]
    public async Task No_mark_is_lost_while_others_mark_and_collect()
    {
        const int Rounds = 20_000;
        Ram.StartTrackingWrites();
        // Each writer counts up in a page of its own: the collector must see the last number after the last mark that it finds.
        int[] seen = new int[4];
        Task[] writers = [.. Enumerable.Range(0, seen.Length).Select(i => Task.Run(() => Count(i, Rounds)))];
        Task all = Task.WhenAll(writers);
        bool last;
        do
        {
            last = all.IsCompleted;
            foreach (ulong page in Collect(0, 64))
            {
                Assert.True(_memory.TryRead(new GuestAddress(page << 12), out seen[page]));
            }
        }
        while (!last);
        await all;
        Assert.Equal(Enumerable.Repeat(Rounds, seen.Length), seen);
    }

    private void Count(int page, int rounds)
    {
        PageLease lease = new(1);
        for (int n = 1; n <= rounds; n++)
        {
            Acquire(lease, (ulong)page << 12);
            lease.TryWrite(0, n);
            lease.Release();
        }
    }

    private void Acquire(PageLease lease, ulong at) =>
        Assert.Equal(Acquired.Ready, _memory.Dma.TryAcquire(new GuestRange(new(at), 8), DmaAccess.Write, lease, _host));

    private List<ulong> Collect(ulong first, ulong pages)
    {
        ulong[] bitmap = new ulong[(pages + 63) / 64];
        Ram.CollectWrittenPages(new(first << 12), pages, bitmap);
        List<ulong> found = [];
        for (ulong i = 0; i < (ulong)bitmap.Length * 64; i++)
        {
            if ((bitmap[i / 64] >> (int)(i % 64) & 1) != 0)
            {
                found.Add(first + i);
            }
        }

        return found;
    }

    private static GuestRange Range(Random random)
    {
        (ulong start, int length) = s_layout[random.Next(3)];
        int offset = random.Next(length);
        return new(new(start + (ulong)offset), (uint)random.Next(Math.Min(length - offset, random.Next(4) == 0 ? 0x80_000 : 0x3000) + 1));
    }
}
