using System.Globalization;
using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests.Paging;

/// <summary>
/// Transfers, a guest, an evicter and a balloon on the same pages, in any order of their steps, against a model: no page in use is taken,
/// no content is lost, no pin stays, nobody waits for ever. VMM_INTERLEAVINGS says how many orders (docs/evidence.md: 10^6).
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
        PageMover mover = new(cache, mapper, store, new SlotTable(Pages));
        MoverRoom room = new();
        ulong[] expected = new ulong[Pages];
        for (ulong page = 0; page < Pages; page++)
        {
            if (random.Next(4) > 0)
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
        ulong device = (ulong)random.Next(Pages - 4), written = (ulong)random.Next(Pages), given = (written + 1) % Pages;
        interleaver.Run(
            () => Transfer(cache, mover, mapper, device, 4),
            () => Guest(cache, mover, mapper, written, expected),
            () => Evict(cache, mover, 3),
            () => Evict(cache, mover, 2),
            () =>
            {
                if (mover.Discard(given, 1) != 0)
                {
                    expected[given] = 0;
                }
            });
        cache.Turn = null;
        Check(cache, mover, mapper, store, room, expected);
    }

    // As TransferPins: pins first, brings what is not there, and uses the pages once they all are.
    private static void Transfer(ResidencyCache cache, PageMover mover, ModelMapper mapper, ulong first, ulong count)
    {
        MoverRoom room = new();
        for (int round = 0; round < 2; round++)
        {
            cache.Pin(first, count);
            while (!cache.AreResident(first, count))
            {
                for (ulong page = first; page < first + count; page++)
                {
                    mover.Fetch(page, room, () => 16);
                }
            }

            Use(cache, mapper, first, count, inUse: true);
            cache.StateOf(first); // a turn
            Use(cache, mapper, first, count, inUse: false);
            cache.Unpin(first, count);
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
        else if (cache.TryMove(page, PageState.Resident, PageState.Moving))
        {
            mapper.Map(page);
            cache.Settle(page, PageState.Resident, used: true);
        }
    }

    private static void Evict(ResidencyCache cache, PageMover mover, int rounds)
    {
        MoverRoom room = new();
        for (int i = 0; i < rounds; i++)
        {
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

        Assert.Equal((resident, staged, outside), ((int)cache.Board.Resident, (int)cache.Board.Staged, store.Held));
        Assert.Equal(resident, mapper.InMemory);
        for (ulong page = 0; page < Pages; page++)
        {
            mover.Fetch(page, room, () => 16);
            Assert.True(mapper.TryTouch(page, write: null, out ulong content), $"page {page} is not mapped");
            Assert.True(content == expected[page], $"page {page} holds {content}, not {expected[page]}");
        }

        Assert.Equal(0, store.Held);
    }
}
