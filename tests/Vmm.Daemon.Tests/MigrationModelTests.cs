using Vmm.Daemon.Moves;

namespace Vmm.Daemon.Tests;

/// <summary>
/// Everything that two daemons can come to by their tables: either dies at any instant, messages are lost, late, or come twice, in any
/// order. The model is of the decision: what is written is durable, what is not is forgotten.
/// </summary>
public sealed class MigrationModelTests
{
    /// <summary>What may be on its way; once sent it may come at any time, any number of times, or never.</summary>
    [Flags]
    private enum Wire
    {
        Nothing = 0,
        Offer = 1,
        Accepted = 2,
        Commit = 4,
        Abort = 8,
        SaidCommitted = 16,
        SaidAborted = 32,
    }

    /// <param name="Source">The host that has the VM.</param>
    /// <param name="Target">The host that gets it; null: it knows nothing of the move, and nothing is decided.</param>
    /// <param name="Wire">Messages.</param>
    private sealed record World(OutgoingStep Source, IncomingStep? Target, Wire Wire)
    {
        internal bool SourceRuns => Source is OutgoingStep.Offered or OutgoingStep.Copying or OutgoingStep.Back;

        internal bool TargetRuns => Target is IncomingStep.Committed;

        internal bool IsOver => (Source, Target) is (OutgoingStep.Gone, _) or (OutgoingStep.Back, _);
    }

    [Fact]
    public void At_no_time_both_run_and_one_always_can()
    {
        World first = new(OutgoingStep.Offered, null, Wire.Offer);
        Dictionary<World, List<World>> all = Explore(first, _ => true);
        Assert.True(all.Count > 30, $"only {all.Count} states");
        foreach (World world in all.Keys)
        {
            Assert.False(world.SourceRuns && world.TargetRuns, $"both run: {world}");
            Assert.False(world is { Source: OutgoingStep.Gone, TargetRuns: false }, $"nobody has it: {world}");
        }

        // From wherever it stands, with a network that works again, it comes to an end at which exactly one runs.
        foreach (World world in all.Keys)
        {
            Assert.Contains(Explore(world, _ => true).Keys, end => end.IsOver && end.SourceRuns != end.TargetRuns);
        }

        Assert.Contains(all.Keys, world => world is { Source: OutgoingStep.Gone, Target: IncomingStep.Committed });
        Assert.Contains(all.Keys, world => world is { Source: OutgoingStep.Asking, Target: IncomingStep.Committed });
    }

    [Theory]
    [InlineData("what was given up is forgotten")]
    [InlineData("a source that does not know goes back")]
    public void The_model_finds_what_would_run_it_twice(string flaw)
    {
        Dictionary<World, List<World>> all = Explore(new World(OutgoingStep.Offered, null, Wire.Offer), _ => true, flaw);
        Assert.Contains(all.Keys, world => world.SourceRuns && world.TargetRuns);
    }

    private static Dictionary<World, List<World>> Explore(World first, Func<World, bool> wanted, string flaw = "")
    {
        Dictionary<World, List<World>> seen = [];
        Queue<World> open = new([first]);
        while (open.TryDequeue(out World? world))
        {
            if (!seen.ContainsKey(world) && wanted(world))
            {
                seen[world] = [.. Next(world, flaw)];
                seen[world].ForEach(open.Enqueue);
            }
        }

        return seen;
    }

    private static IEnumerable<World> Next(World world, string flaw) => [.. OfSource(world, flaw), .. OfTarget(world, flaw)];

    private static IEnumerable<World> OfSource(World world, string flaw)
    {
        IEnumerable<World> On(OutgoingEvent what, Wire sends = Wire.Nothing)
        {
            if (MigrationSteps.TryNext(world.Source, what, out OutgoingStep next))
            {
                // Who gives up tells the other, who may hear of it or not.
                yield return world with { Source = next, Wire = world.Wire | sends | (next == OutgoingStep.Back ? Wire.Abort : 0) };
            }
        }

        List<World> next = [.. On(OutgoingEvent.Failed), .. On(OutgoingEvent.Died), .. On(OutgoingEvent.Written)];
        next.AddRange(world.Wire.HasFlag(Wire.Accepted) ? On(OutgoingEvent.Accepted) : []);
        next.AddRange(On(OutgoingEvent.Rested));
        next.AddRange(world.Wire.HasFlag(Wire.SaidCommitted) ? On(OutgoingEvent.SaidCommitted) : []);
        next.AddRange(world.Wire.HasFlag(Wire.SaidAborted) ? On(OutgoingEvent.SaidAborted) : []);
        if (world.Source == OutgoingStep.Asking)
        {
            next.Add(world with { Wire = world.Wire | Wire.Commit });
            next.Add(world with { Wire = world.Wire | Wire.Abort }); // somebody cancelled it
            if (flaw.StartsWith("a source", StringComparison.Ordinal))
            {
                next.Add(world with { Source = OutgoingStep.Back });
            }
        }

        return next;
    }

    private static IEnumerable<World> OfTarget(World world, string flaw)
    {
        bool forgets = flaw.StartsWith("what", StringComparison.Ordinal);
        Wire Word(IncomingStep? step) => step switch
        {
            IncomingStep.Committed => Wire.SaidCommitted,
            IncomingStep.Aborted => Wire.SaidAborted,
            _ => Wire.Nothing,
        };

        IEnumerable<World> On(IncomingEvent what)
        {
            if (world.Target is { } step && MigrationSteps.TryNext(step, what, out IncomingStep next))
            {
                yield return world with { Target = forgets && next == IncomingStep.Aborted ? null : next };
            }
        }

        List<World> all = [.. On(IncomingEvent.GivenUp), .. On(IncomingEvent.Died), .. On(IncomingEvent.Decided)];
        if (world.Wire.HasFlag(Wire.Offer) && world.Target is null)
        {
            all.Add(world with { Target = IncomingStep.Receiving, Wire = world.Wire | Wire.Accepted });
        }

        if (world.Wire.HasFlag(Wire.Commit))
        {
            // Of what is not known nothing is taken, and that is written, too.
            all.AddRange(world.Target is null ? [world with { Target = IncomingStep.Aborted }] : On(IncomingEvent.Asked));
        }

        if (world.Wire.HasFlag(Wire.Abort) && world.Target is null)
        {
            all.Add(forgets
                ? world with { Wire = world.Wire | Wire.SaidAborted }
                : world with { Target = IncomingStep.Aborted });
        }

        // Whoever asks is told what is decided.
        if (world.Wire.HasFlag(Wire.Commit) || world.Wire.HasFlag(Wire.Abort))
        {
            all.Add(world with { Wire = world.Wire | Word(world.Target) });
        }

        return all;
    }
}
