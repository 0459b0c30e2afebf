using Vmm.Daemon.Pressure;

namespace Vmm.Daemon.Tests.Pressure;

/// <summary>
/// A guest with a resident limit. What it has touched stays resident up to the limit in force; what it uses of that is a function of time,
/// and what is beyond the limit it reads back again and again. Its pager takes pages out, and brings them in, at a limited speed.
/// </summary>
internal sealed class PressedGuest(string name, ulong configuredMiB, Func<double, double> usesMiB)
{
    private const ulong MiB = 1 << 20, Page = 4096, PerSecond = 64 * MiB;

    internal string Name => name;

    internal ulong Configured => configuredMiB * MiB;

    internal ulong Least { get; init; } = 64 * MiB;

    internal int Weight { get; init; } = 100;

    /// <summary>Bytes that it touches once and does not use.</summary>
    internal ulong Cold { get; init; }

    /// <summary>Its swap file is full.</summary>
    internal bool Stopped { get; set; }

    internal IReadOnlyDictionary<int, double> Nodes { get; init; } = new Dictionary<int, double> { [0] = 1 };

    internal ulong InForce { get; set; } = configuredMiB * MiB;

    internal ulong Resident { get; set; }

    internal ulong PagesIn { get; private set; }

    internal ulong PagesOut { get; private set; }

    /// <summary>When its limit was changed.</summary>
    internal List<int> Changes { get; } = [];

    /// <summary>Its balloon; null: none. It takes what it is asked for, at a limited speed, as far as the guest has that free.</summary>
    internal ulong? BalloonTarget { get; set; }

    internal ulong BalloonHeld { get; private set; }

    /// <summary>The balloon's target is the loop's.</summary>
    internal bool BalloonTaken { get; set; }

    /// <summary>Bytes of the guest, which are more than its limit.</summary>
    internal ulong Memory { get; init; } = 2 * configuredMiB * MiB;

    private ulong Uses(double second) => (ulong)(Math.Max(0, usesMiB(second)) * MiB);

    internal PressedVm Sample(double second) => new(name, Configured, Least, InForce, Resident, Weight)
    {
        Nodes = Nodes,
        PagesIn = PagesIn,
        PagesOut = PagesOut,
        Stopped = Stopped,
        Balloon = BalloonTarget is { } target
            ? new PressedBalloon(
                target, BalloonHeld, Memory, Memory - BalloonHeld - Math.Min(Memory - BalloonHeld, Uses(second)), BalloonTaken)
            : null,
    };

    internal void Obey(PressureDecision decision, int second)
    {
        if (decision.Means == PressureMeans.Balloon)
        {
            Assert.InRange(decision.To, 0UL, Memory - Least);
            (BalloonTarget, BalloonTaken) = (decision.To, decision.To > 0);
            return;
        }

        Assert.InRange(decision.To, Least, Configured);
        Assert.Equal(0UL, decision.To % Page);
        Assert.Equal(InForce, decision.From);
        Assert.NotEqual(InForce, decision.To);
        InForce = decision.To;
        Changes.Add(second);
    }

    internal void Live(double second)
    {
        ulong uses = Uses(second), wants = Math.Min(InForce, uses + Cold);
        if (Resident > InForce && !Stopped)
        {
            ulong goes = Math.Min(Resident - InForce, PerSecond);
            (Resident, PagesOut) = (Resident - goes, PagesOut + (goes / Page));
        }
        else if (Resident < wants)
        {
            Resident += Math.Min(wants - Resident, PerSecond);
        }

        // It misses what it uses and has not, and pays for that with pages that come and go.
        ulong missing = Math.Min(uses > Resident ? uses - Resident : 0, PerSecond) / Page;
        (PagesIn, PagesOut) = (PagesIn + missing, PagesOut + missing);
        if (BalloonTarget is { } target && BalloonHeld != target)
        {
            ulong free = Memory - Math.Min(Memory, uses);
            ulong to = target > BalloonHeld ? Math.Min(Math.Min(target, free), BalloonHeld + PerSecond) : target;
            ulong taken = to > BalloonHeld ? to - BalloonHeld : 0;
            // What it takes is cold memory: as much of that is resident as of the rest.
            Resident -= Math.Min(Resident - Math.Min(Resident, uses), (ulong)(taken * ((double)Resident / Memory)));
            BalloonHeld = Math.Max(to, target > BalloonHeld ? BalloonHeld : 0);
        }
    }
}

/// <summary>Hours of guests on one host in no time: the policy is asked every five seconds, the guests live every second.</summary>
internal sealed class PressureSimulator(ulong hostMiB, Func<double, double> othersMiB, params PressedGuest[] guests)
{
    private const ulong MiB = 1 << 20;

    internal PressureState State { get; set; } = new();

    internal PressureRules Rules { get; } = new();

    internal ulong Reserve { get; init; } = 256 * MiB;

    internal bool Enabled { get; set; } = true;

    internal Func<double, double>? Stall { get; init; }

    internal List<(int Second, PressureDecision Decision)> Decisions { get; } = [];

    /// <summary>Seconds in which less than half of the reserve was available.</summary>
    internal int TightSeconds { get; private set; }

    internal ulong Available { get; private set; }

    internal int Now { get; private set; }

    internal void Run(int seconds)
    {
        for (int end = Now + seconds; Now < end; Now++)
        {
            foreach (PressedGuest guest in guests)
            {
                guest.Live(Now);
            }

            ulong used = guests.Aggregate((ulong)(othersMiB(Now) * MiB), (sum, guest) => sum + guest.Resident);
            Available = (hostMiB * MiB) - Math.Min(hostMiB * MiB, used);
            TightSeconds += Available < Reserve / 2 ? 1 : 0;
            if (Now % 5 != 0)
            {
                continue;
            }

            HostReading host = new(
                [new NodeReading(0, hostMiB * MiB, Available)], Stall is { } stall ? new MemoryStall(stall(Now), 0) : null);
            foreach (PressureDecision decision in PressurePolicy.Decide(
                new PressureSnapshot(host, Reserve, [.. guests.Select(guest => guest.Sample(Now))], Enabled), State, Rules,
                TimeSpan.FromSeconds(Now)))
            {
                Decisions.Add((Now, decision));
                guests.Single(guest => guest.Name == decision.Vm).Obey(decision, Now);
            }
        }
    }
}
