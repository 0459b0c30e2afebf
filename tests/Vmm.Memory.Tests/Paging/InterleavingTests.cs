using System.Collections.Concurrent;
using System.Globalization;
using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests.Paging;

/// <summary>
/// Transfers, a guest, two evicters, a balloon, memory that is unplugged and plugged, one who moves pages to another node and one who saves
/// them, all on the same pages, in any order of their steps, against a model: no page in use is taken, no two work on one page, no content
/// is lost, no pin stays, nobody waits for ever. VMM_INTERLEAVINGS says how many orders (docs/evidence.md: 10^6).
/// </summary>
public sealed class InterleavingTests
{
    private const int Pages = 16;

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Any_order_of_steps_keeps_every_page()
    {
        int count = int.Parse(Environment.GetEnvironmentVariable("VMM_INTERLEAVINGS") ?? "1000", CultureInfo.InvariantCulture);
        int first = int.Parse(Environment.GetEnvironmentVariable("VMM_INTERLEAVING_SEED") ?? "1", CultureInfo.InvariantCulture);
        for (int seed = first; seed < first + count; seed++)
        {
            try
            {
                RunOne(seed);
            }
            catch (Exception cause)
            {
                Assert.Fail($"seed {seed}: {cause}");
            }
        }
    }

    private static void RunOne(int seed)
    {
        ThreadPool.GetMinThreads(out int workers, out int ports);
        ThreadPool.SetMinThreads(Math.Max(workers, 16), ports); // or each run waits for threads
        Random random = new(seed);
        using Interleaver interleaver = new(seed);
        using ResidencyCache cache = new([(0x10000, Pages)]);
        using MemoryStore store = new();
        ModelMapper mapper = new(Pages, interleaver.Turn);
        SlotTable slots = new(Pages);
        PageRestorer restorer = new(cache, mapper, store, slots);
        PageMover mover = new(cache, mapper, store, slots, restorer);
        PageRelocator relocator = new(cache, mapper);
        PageReader reader = new(cache, mapper, store, slots, restorer);
        MoverRoom room = new();
        ulong[] expected = new ulong[Pages];
        if (random.Next(2) == 0)
        {
            restorer.Add(0, new ModelSavedPages(expected, random));
        }

        for (ulong page = 0; page < Pages; page++)
        {
            if (random.Next(4) > 0 && cache.StateOf(page) != PageState.Saved)
            {
                mover.Fetch(page, room, () => 1);
                expected[page] = random.Next(3) == 0 ? 0 : page + 100;
                mapper.TryTouch(page, expected[page], out _);
            }
        }

        if (random.Next(2) == 0)
        {
            mover.Stage(0, spareUsed: false);
            if (random.Next(2) == 0)
            {
                mover.WriteOut(0, room);
            }
        }

        cache.Turn = interleaver.Turn;
        // The last two pages come and go; the others are for everybody.
        ulong device = (ulong)random.Next(Pages - 6), written = (ulong)random.Next(Pages - 2), given = (written + 1) % (Pages - 2);
        Plugged plugged = new(expected);
        Passed passed = new();
        Action[][] all =
        [
            [() => Transfer(cache, mover, mapper, device, 4, passed), () => ReleaseForOthers(cache, passed, device)],
            [() => TransferToPlugged(cache, mover, mapper, plugged)],
            [() => Guest(cache, mover, mapper, written, expected)],
            [() => Evict(cache, mover, 3)],
            [() => Evict(cache, mover, 2)],
            [() => Rehome(cache, relocator)],
            [() => Save(reader, expected, written, given)],
            [() => Unplug(cache, mover, plugged)],
            [() => Prefetch(restorer, intoMemory: true)],
            [() => Prefetch(restorer, intoMemory: false)],
            [() =>
            {
                if (mover.Discard(given, 1) != 0)
                {
                    expected[given] = 0;
                }
            }],
        ];
        random.Shuffle(all);
        interleaver.Run([.. all[..random.Next(2, 7)].SelectMany(each => each)]); // few at once meet as often, and cost less
        cache.Turn = null;
        Check(cache, mover, mapper, store, room, expected);
        Assert.Equal(0, restorer.Left);
    }

    // As TransferPins: pins first, brings what is not there, and uses the pages once they all are. Meanwhile a second one of this thread
    // pins the same pages, and gives up: another thread ends its pins.
    private static void Transfer(
        ResidencyCache cache, PageMover mover, ModelMapper mapper, ulong first, ulong count, Passed passed)
    {
        MoverRoom room = new();
        PinLane lane = cache.Lanes.Mine;
        for (int round = 0; round < 2; round++)
        {
            cache.Pin(lane, first, count);
            Bring(cache, mover, first, count, room);
            Use(cache, mapper, first, count, inUse: true);
            cache.Pin(lane, first, count);
            passed.Lanes.Enqueue(lane);
            cache.StateOf(first); // a turn
            Use(cache, mapper, first, count, inUse: false);
            cache.Unpin(lane, first, count, PinTable.IsOwn(lane));
        }

        passed.IsOver = true;
    }

    private static void Bring(ResidencyCache cache, PageMover mover, ulong first, ulong count, MoverRoom room)
    {
        while (!cache.AreResident(first, count))
        {
            for (ulong page = first; page < first + count; page++)
            {
                mover.Fetch(page, room, () => 16);
            }
        }
    }

    private static void ReleaseForOthers(ResidencyCache cache, Passed passed, ulong first)
    {
        while (!passed.IsOver || !passed.Lanes.IsEmpty)
        {
            cache.StateOf(first); // a turn
            if (passed.Lanes.TryDequeue(out PinLane? lane))
            {
                cache.Unpin(lane, first, 4, isOwn: false);
            }
        }
    }

    // As DmaSpace: whether the pages are memory of the guest is looked at again when they are pinned.
    private static void TransferToPlugged(ResidencyCache cache, PageMover mover, ModelMapper mapper, Plugged plugged)
    {
        MoverRoom room = new();
        PinLane lane = cache.Lanes.Mine;
        for (ulong value = 2000; value < 2003; value++)
        {
            cache.Pin(lane, Plugged.First, Plugged.Count);
            if (plugged.IsThere)
            {
                Bring(cache, mover, Plugged.First, Plugged.Count, room);
                Use(cache, mapper, Plugged.First, Plugged.Count, inUse: true);
                mapper.TryTouch(Plugged.First, value, out _);
                plugged.Expect(value);
                cache.StateOf(Plugged.First); // a turn
                Use(cache, mapper, Plugged.First, Plugged.Count, inUse: false);
            }

            cache.Unpin(lane, Plugged.First, Plugged.Count, PinTable.IsOwn(lane));
        }
    }

    // As HotMemory: devices first; what a transfer keeps is given back before it is plugged again, or it is not plugged.
    private static void Unplug(ResidencyCache cache, PageMover mover, Plugged plugged)
    {
        MoverRoom room = new();
        for (int round = 0; round < 2; round++)
        {
            plugged.IsThere = false;
            cache.StateOf(Plugged.First); // a turn
            while (mover.Discard(Plugged.First, Plugged.Count) != (1u << Plugged.Count) - 1)
            {
                cache.StateOf(Plugged.First); // a turn
            }

            plugged.Expect(0);
            plugged.IsThere = true;
            mover.Fetch(Plugged.First, room, () => 16);
            cache.StateOf(Plugged.First); // a turn
        }
    }

    private static void Rehome(ResidencyCache cache, PageRelocator relocator)
    {
        ulong[] all = [.. Enumerable.Range(0, Pages).Select(page => (ulong)page)];
        for (int round = 0; round < 2; round++)
        {
            relocator.Move(all, round);
            cache.StateOf(0); // a turn
        }
    }

    private static void Save(PageReader reader, ulong[] expected, ulong written, ulong given)
    {
        byte[] content = new byte[Pages * 4096];
        reader.Read(0, content, new MoverRoom());
        for (ulong page = 0; page < Plugged.First; page++)
        {
            ulong read = BitConverter.ToUInt64(content, (int)page * 4096);
            if (page != written && page != given && read != expected[page])
            {
                throw new InvalidOperationException($"page {page} is saved as {read}, not {expected[page]}");
            }
        }
    }

    private static void Prefetch(PageRestorer restorer, bool intoMemory)
    {
        MoverRoom room = new();
        for (int at = 0; restorer.TryNext(ref at, out ulong chunk); at++)
        {
            (intoMemory ? (Action<ulong, MoverRoom>)restorer.Prefetch : restorer.MoveOut)(chunk, room);
        }
    }

    private static void Use(ResidencyCache cache, ModelMapper mapper, ulong first, ulong count, bool inUse)
    {
        _ = cache;
        for (ulong page = first; page < first + count; page++)
        {
            mapper.Use(page, inUse);
        }
    }

    // A vCPU: what faults is answered, and it tries again.
    private static void Guest(ResidencyCache cache, PageMover mover, ModelMapper mapper, ulong page, ulong[] expected)
    {
        MoverRoom room = new();
        for (ulong value = 1000; value < 1003; value++)
        {
            ulong content;
            while (!mapper.TryTouch(page, write: null, out content) || !mapper.TryTouch(page, value, out _))
            {
                Answer(cache, mover, mapper, page, room);
            }

            if (content != expected[page])
            {
                throw new InvalidOperationException($"page {page} holds {content}, not {expected[page]}");
            }

            expected[page] = value;
            cache.StateOf(page); // a turn
        }
    }

    // As native-shim/pager.c: a resident page that is not mapped is mapped by who owns it.
    private static void Answer(ResidencyCache cache, PageMover mover, ModelMapper mapper, ulong page, MoverRoom room)
    {
        if (cache.StateOf(page) != PageState.Resident)
        {
            mover.Fetch(page, room, () => 16);
        }
        else if (cache.TryMove(page, PageState.Resident, PageState.Moving, out bool kept))
        {
            mapper.Map(page, kept: false);
            cache.Settle(page, PageState.Resident, used: true, kept);
        }
    }

    private static void Evict(ResidencyCache cache, PageMover mover, int rounds)
    {
        MoverRoom room = new();
        for (int i = 0; i < rounds; i++)
        {
            if (i == 2)
            {
                mover.DropKept(0); // as when the store is full
            }

            mover.Stage(0, spareUsed: i == 0);
            mover.WriteOut(0, room);
            cache.StateOf(0); // a turn
        }
    }

    private static void Check(
        ResidencyCache cache, PageMover mover, ModelMapper mapper, MemoryStore store, MoverRoom room, ulong[] expected)
    {
        Assert.Equal(0u, cache.Pins(0));
        int resident = 0, staged = 0, outside = 0;
        for (ulong page = 0; page < Pages; page++)
        {
            PageState state = cache.StateOf(page);
            Assert.NotEqual(PageState.Moving, state);
            resident += state is PageState.Resident or PageState.Staged ? 1 : 0;
            staged += state == PageState.Staged ? 1 : 0;
            outside += state == PageState.Out ? 1 : 0;
        }

        Assert.Equal(
            (resident, staged, outside), ((int)cache.Board.Resident, (int)cache.Board.Staged, store.Held - (int)mover.Kept));
        Assert.Equal(resident, mapper.InMemory);
        for (ulong page = 0; page < Pages; page++)
        {
            mover.Fetch(page, room, () => 16);
            Assert.True(mapper.TryTouch(page, write: null, out ulong content), $"page {page} is not mapped");
            Assert.True(content == expected[page], $"page {page} holds {content}, not {expected[page]}");
        }

        Assert.Equal((int)mover.Kept, store.Held);
        Assert.Equal((1u << Pages) - 1, mover.Discard(0, Pages));
        Assert.Equal((0, 0L), (store.Held, mover.Kept));
    }

    /// <summary>Pins that another thread ends.</summary>
    private sealed class Passed
    {
        internal ConcurrentQueue<PinLane> Lanes { get; } = new();

        internal bool IsOver { get; set; }
    }

    /// <summary>Memory that comes and goes.</summary>
    private sealed class Plugged(ulong[] expected)
    {
        internal const ulong First = Pages - 2;

        internal const int Count = 2;

        internal bool IsThere { get; set; } = true;

        internal void Expect(ulong content)
        {
            expected[First] = content;
            for (ulong page = First + 1; content == 0 && page < Pages; page++)
            {
                expected[page] = 0;
            }
        }
    }
}
