using System.Collections.Immutable;
using Xunit.Abstractions;

namespace Vmm.Storage.Tests.RouterModel;

/// <summary>
/// Every state that a router with few requests can reach, and every step from each: first as a model, whose rules are checked, then the
/// same steps by the code, which has to show the same. <c>VMM_ROUTER_REQUESTS</c> is how many requests there are at once.
/// </summary>
public sealed class RouterModelTests(ITestOutputHelper output)
{
    [Fact]
    public void Code_and_model_agree_on_every_step_from_every_state()
    {
        int most = int.TryParse(Environment.GetEnvironmentVariable("VMM_ROUTER_REQUESTS"), out int asked) ? asked : 3, steps = 0;
        using RouterRig rig = new(most);
        Dictionary<string, ImmutableArray<RouterStep>> reached = new() { [new RouterModelState().Key] = [] };
        Queue<ImmutableArray<RouterStep>> open = new([[]]);
        while (open.TryDequeue(out ImmutableArray<RouterStep> trace))
        {
            RouterModelState state = Replay(trace);
            foreach (RouterStep step in Enum.GetValues<RouterStep>().Where(step => state.IsPossible(step, most)))
            {
                ImmutableArray<RouterStep> longer = trace.Add(step);
                RouterModelState next = Compare(rig, longer);
                Rules(state, step, next);
                steps++;
                if (reached.TryAdd(next.Key, longer))
                {
                    open.Enqueue(longer);
                }
            }
        }

        output.WriteLine($"{most} requests at once: {reached.Count} states, {steps} steps, all as the model has them");
        Assert.True(reached.Count > 100 * most, $"only {reached.Count} states"); // it went somewhere
    }

    private static RouterModelState Replay(ImmutableArray<RouterStep> trace)
    {
        RouterModelState state = new();
        for (int i = 0; i < trace.Length; i++)
        {
            state = state.After(trace[i], i).Next;
        }

        return state;
    }

    // The rules of design.md section 7, of the model: that the code does the same is compared.
    private static void Rules(RouterModelState from, RouterStep step, RouterModelState to)
    {
        Assert.True(to.Phase != RouterState.Reassigning || to.InFlight.IsEmpty, "drained with requests in flight");
        Assert.True(from.Owner == to.Owner || from.Phase == RouterState.Reassigning, "another owner before the drain");
        Assert.True(to.Phase != RouterState.Forwarding || to.GateIsClosed || to.Held.IsEmpty, "held without a reason");
        Assert.True(to.Phase != RouterState.Forwarding || to.Failed.IsEmpty, "failed and not issued again");
        Assert.Equal(to.Held.Order(), to.Held.AsEnumerable());
        Assert.Equal(to.Live, to.Held.Concat(to.Failed).Concat(to.InFlight).Distinct().Count());
        int ended = step is RouterStep.EndOldest or RouterStep.EndNewest ? 1 : step == RouterStep.TakeHeld ? from.Held.Length : 0;
        int came = step == RouterStep.Submit && (from.Phase == RouterState.Forwarding || from.HasRoom) ? 1 : 0;
        Assert.Equal(from.Live - ended + came, to.Live); // nothing lost, nothing doubled
    }

    private static RouterModelState Compare(RouterRig rig, ImmutableArray<RouterStep> trace)
    {
        RouterModelState state = new();
        (long accepted, long completed, long refused) = (0, 0, 0);
        rig.Begin();
        try
        {
            for (int i = 0; i < trace.Length; i++)
            {
                (RouterModelState next, RouterSeen expected) = state.After(trace[i], i);
                RouterSeen seen = rig.Do(trace[i], i);
                string where = $"{string.Join(' ', trace[..(i + 1)])}: ";
                Assert.Equal(where + expected, where + seen);
                state = next;
                accepted += (trace[i] == RouterStep.Submit ? 1 : 0) - seen.Refused.Length - seen.TakenBack.Length;
                completed += seen.Ended.Length;
                refused += seen.Refused.Length;
            }

            string all = string.Join(' ', trace);
            int held = state.Held.Length + state.Failed.Length;
            Assert.Equal(
                (all, (state.Phase, state.HasRoom, state.InFlight.Length, held, state.Failed.Length,
                    state.Phase == RouterState.Reassigning)),
                (all, rig.Shown));
            Assert.Equal(
                (all, new RouterLedger(accepted, completed + state.InFlight.Length, completed, state.InFlight.Length, held, refused)),
                (all, rig.Ledger));
            Assert.Equal(state.InFlight.AsEnumerable(), rig.At(state.Owner).AsEnumerable());
            Assert.Empty(rig.At(1 - state.Owner));
        }
        finally
        {
            rig.End();
        }

        return state;
    }
}
