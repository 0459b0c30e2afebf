using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests.Paging;

/// <summary>
/// A transfer comes between any two steps of who takes its page away: either it sees the claim and waits, or its pin is seen and the page
/// stays. All steps in turn, where <see cref="InterleavingTests"/> draw them.
/// </summary>
public sealed class PinGuardTests
{
    private const ulong Page = 3;

    [Theory]
    [InlineData("stage")]
    [InlineData("give back")]
    [InlineData("move to another node")]
    public void A_transfer_between_any_two_steps_keeps_its_page_or_sees_the_claim(string taker)
    {
        int uses = 0, waits = 0;
        for (int step = 1; TryRun(taker, step, out bool isInUse); step++)
        {
            uses += isInUse ? 1 : 0;
            waits += isInUse ? 0 : 1;
        }

        Assert.True(uses > 0 && waits > 0, $"{uses} transfers used the page, {waits} saw the claim");
    }

    // False when the work is over before the step; the model fails when a page is taken that is in use.
    private static bool TryRun(string taker, int step, out bool isInUse)
    {
        using ResidencyCache cache = new([(0x10000, 16)]);
        using MemoryStore store = new();
        bool comes = false, uses = false;
        int turns = 0;
        ModelMapper? model = null;
        void Turn()
        {
            if (++turns == step)
            {
                cache.Turn = null;
                comes = true;
                cache.Pin(cache.Lanes.Mine, Page, 1);
                uses = cache.AreResident(Page, 1);
                if (uses)
                {
                    model!.Use(Page, inUse: true);
                }

                cache.Turn = Turn;
            }
        }

        ModelMapper mapper = model = new ModelMapper(16, () => cache.Turn?.Invoke());
        SlotTable slots = new(16);
        PageRestorer restorer = new(cache, mapper, store, slots);
        PageMover mover = new(cache, mapper, store, slots, restorer);
        mover.Fetch(Page, new MoverRoom(), () => 1);
        cache.Turn = Turn;
        switch (taker)
        {
            case "stage":
                mover.Stage(0, spareUsed: false);
                break;
            case "give back":
                mover.Discard(Page, 1);
                break;
            default:
                new PageRelocator(cache, mapper).Move([Page], 0);
                break;
        }

        cache.Turn = null;
        Assert.True(!uses || cache.StateOf(Page) == PageState.Resident, $"step {step}: a page in use is {cache.StateOf(Page)}");
        isInUse = uses;
        return comes;
    }
}
