using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests.Paging;

/// <summary>Pins without locked operations: who takes pages away sees every one that counts.</summary>
public sealed class PinTableTests
{
    /// <summary>
    /// On real processors: one thread pins a page and looks at its state, another claims it and looks at the pins. If neither saw the
    /// other, a page in use would be taken. The pin stands behind stores to memory that is in no cache, as a transfer's does: a processor
    /// keeps it back for them, does the look meanwhile, and without <see cref="PinTable.Fence"/> one round in a hundred goes wrong.
    /// </summary>
    [Fact]
    public void Of_a_pin_and_a_claim_at_least_one_sees_the_other()
    {
        const int Rounds = 100_000, MostMilliseconds = 3000; // a machine with much to do gets to fewer
        const int Stride = 4096 + 64, MostStores = 24;
        const ulong Page = 40;
        byte[] far = new byte[64 << 20]; // more than a processor's caches
        far.AsSpan().Fill(1); // and there
        using ResidencyCache cache = new([(0x10000, 64)]);
        Assert.True(cache.TryMove(Page, PageState.Empty, PageState.Moving));
        cache.Settle(Page, PageState.Resident, used: true);
        long pinner = 0, claimer = 0, neither = 0;
        bool isHere = false, isOver = false;
        Thread other = new(() =>
        {
            PinLane lane = cache.Lanes.Mine;
            int at = 0;
            for (long round = 1; !Volatile.Read(ref isOver); round++)
            {
                Meet(ref pinner, ref claimer, round * 3);
                for (long stores = round % MostStores; stores > 0; stores--)
                {
                    at = (at + Stride) & (far.Length - 1);
                    far[at] = (byte)round;
                }

                cache.Pin(lane, Page, 1);
                isHere = cache.AreResident(Page, 1);
                Meet(ref pinner, ref claimer, (round * 3) + 1);
                cache.Unpin(lane, Page, 1, PinTable.IsOwn(lane));
                Meet(ref pinner, ref claimer, (round * 3) + 2);
            }
        });
        other.Start();
        long end = Environment.TickCount64 + MostMilliseconds;
        for (long round = 1; !isOver; round++)
        {
            Meet(ref claimer, ref pinner, round * 3);
            Thread.SpinWait((int)(round % 4));
            Assert.True(cache.TryMove(Page, PageState.Resident, PageState.Moving));
            cache.Fence();
            bool isPinned = cache.Pins(ResidencyCache.GroupOf(Page)) != 0;
            Meet(ref claimer, ref pinner, (round * 3) + 1);
            neither += isHere && !isPinned ? 1 : 0;
            cache.Settle(Page, PageState.Resident, used: true);
            Volatile.Write(ref isOver, round == Rounds || (round % 64 == 0 && Environment.TickCount64 > end));
            Meet(ref claimer, ref pinner, (round * 3) + 2);
        }

        other.Join();
        Assert.Equal(0, neither);
        Assert.Equal(0u, cache.Pins(ResidencyCache.GroupOf(Page)));
    }

    [Fact]
    public void A_pin_that_another_thread_ends_is_ended()
    {
        using PinTable table = new(8);
        PinLane lane = table.Mine;
        Assert.False(lane.IsShared);
        Assert.Same(lane, table.Mine);
        lane.Pin(3);
        lane.Pin(3);
        table.Batch = 64;
        table.Use(lane, 20);
        Assert.Equal(2u, table.Pins(3, null));
        Elsewhere(() =>
        {
            Assert.False(PinTable.IsOwn(lane));
            Assert.NotSame(lane, table.Mine);
            lane.Unpin(3, isOwn: false);
            table.EndUse(lane, 5, isOwn: false);
        });
        Assert.Equal((1u, 15L), (table.Pins(3, null), table.InUse));
        lane.Unpin(3, PinTable.IsOwn(lane));
        table.EndUse(lane, 15, isOwn: true);
        Assert.Equal((0u, 0L), (table.Pins(3, null), table.InUse));
    }

    /// <summary>What was returned is read first: the other way round a pin that comes and goes between hides one that stays.</summary>
    [Fact]
    public void A_sum_amid_a_pin_that_comes_and_goes_counts_the_one_that_stays()
    {
        using PinTable table = new(8);
        PinLane lane = table.Mine;
        lane.Pin(3);
        uint pins = table.Pins(3, () =>
        {
            lane.Pin(3);
            lane.Unpin(3, isOwn: false);
        });
        Assert.NotEqual(0u, pins);
        Assert.Equal(1u, table.Pins(3, null));
    }

    [Fact]
    public void Threads_without_a_lane_of_their_own_share_one_and_a_lane_goes_on_when_its_thread_has_ended()
    {
        using PinTable table = new(4);
        using Barrier all = new(PinTable.MostLanes + 8);
        int shared = 0;
        Thread[] threads = [.. Enumerable.Range(0, PinTable.MostLanes + 8).Select(_ => new Thread(() =>
        {
            PinLane lane = table.Mine;
            Interlocked.Add(ref shared, lane.IsShared ? 1 : 0);
            all.SignalAndWait(); // each has taken its lane
            for (int i = 0; i < 1000; i++)
            {
                lane.Pin(1);
                table.Use(lane, 3);
                lane.Unpin(1, PinTable.IsOwn(lane));
                table.EndUse(lane, 3, PinTable.IsOwn(lane));
                PinTable.CountHit(lane);
            }
        }))];
        Array.ForEach(threads, thread => thread.Start());
        Array.ForEach(threads, thread => thread.Join());
        Assert.Equal(8, shared);
        Assert.Equal((0u, 0L, threads.Length * 1000L), (table.Pins(1, null), table.InUse, table.Hits));

        bool isOwn = false;
        for (int i = 0; i < 100 && !isOwn; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            Elsewhere(() => isOwn = !table.Mine.IsShared);
        }

        Assert.True(isOwn, "no lane of a thread that ended is used again");
    }

    private static void Elsewhere(Action body)
    {
        Exception? failure = null;
        Thread thread = new(() => failure = Record.Exception(body));
        thread.Start();
        thread.Join();
        Assert.Null(failure);
    }

    // Both are at the same place; who waits for long lets others run.
    private static void Meet(ref long mine, ref long other, long at)
    {
        Volatile.Write(ref mine, at);
        for (int spins = 0; Volatile.Read(ref other) < at; spins++)
        {
            if (spins > 2000)
            {
                Thread.Yield();
            }
        }
    }
}
