using System.Globalization;
using Vmm.Daemon.Balancer;

namespace Vmm.Daemon.Tests.Balancer;

/// <summary>
/// A guest whose need for memory is a function of time. It takes what it is given and gives back what is free, both at a limited speed; it
/// can cling to some.
/// </summary>
internal sealed class SimulatedGuest(string name, int node, ulong least, ulong most, Func<double, double> needMiB)
{
    private readonly ulong _least = least;

    private const ulong MiB = 1 << 20, PerSecond = 128 * MiB;

    internal string Name => name;

    internal ulong Present { get; set; } = least;

    internal ulong Asked { get; set; } = least;

    internal int Weight { get; init; } = 100;

    /// <summary>
    /// Its memory is fixed: it starts with all of it, a balloon takes some, and it takes that back by itself when it runs out of memory.
    /// </summary>
    internal bool ByBalloon { get; init; }

    /// <summary>Bytes it never gives back once it has them.</summary>
    internal ulong Clings { get; init; }

    internal int Changes { get; private set; }

    /// <summary>Seconds in which it needed more than it had.</summary>
    internal int ShortSeconds { get; private set; }

    private ulong Need(double second) => (ulong)(Math.Max(0, needMiB(second)) * MiB);

    internal VnodeSample Sample(double second)
    {
        ulong need = Need(second);
        return new VnodeSample(name, 0, node, _least, most, Asked, Present, 2 * MiB, Weight, need < Present ? Present - need : 0,
            need > Present ? Math.Min(1, (double)(need - Present) / Present) : 0, ByBalloon: ByBalloon);
    }

    internal void Obey(ulong asked)
    {
        Assert.InRange(asked, _least, most);
        Assert.Equal(0UL, (asked - _least) % (2 * MiB));
        (Asked, Changes) = (asked, Changes + 1);
    }

    internal void Live(double second)
    {
        ulong need = Need(second);
        if (Asked > Present)
        {
            Present = Math.Min(Asked, Present + PerSecond);
        }
        else if (Asked < Present)
        {
            ulong floor = Math.Max(Math.Max(Asked, need), Math.Min(Present, _least + Clings));
            Present = Math.Max(Math.Min(floor, Present), Present > PerSecond ? Present - PerSecond : 0);
        }

        ShortSeconds += need > Present ? 1 : 0;
        if (ByBalloon && need > Present)
        {
            Present = Math.Min(most, need); // deflate on OOM
        }
    }
}

/// <summary>Hours of guests on one host in no time: the policy is asked every ten seconds, the guests live every second.</summary>
internal sealed class Simulator(ulong hostBytes, int nodes, params SimulatedGuest[] guests)
{
    private readonly BalancerState _state = new();

    internal BalancerRules Rules { get; init; } = new();

    internal List<(int Second, BalancerDecision Decision)> Decisions { get; } = [];

    /// <summary>Seconds in which a node had less than its reserve left.</summary>
    internal int TightSeconds { get; private set; }

    internal void Run(int seconds, bool balanced)
    {
        for (int second = 0; second < seconds; second++)
        {
            foreach (SimulatedGuest guest in guests)
            {
                guest.Live(second);
            }

            HostSample[] hosts = [.. Enumerable.Range(0, nodes).Select(n =>
                new HostSample(n, hostBytes, hostBytes - Math.Min(hostBytes, Sum(guests.Where(g => g.Sample(second).HostNode == n)))))];
            TightSeconds += hosts.Any(h => h.Available < Rules.ReserveOf(h)) ? 1 : 0;
            if (!balanced || second % 10 != 0)
            {
                continue;
            }

            foreach (BalancerDecision decision in BalancerPolicy.Decide(
                new BalancerSnapshot([.. guests.Select(g => g.Sample(second))], hosts), _state, Rules, TimeSpan.FromSeconds(second)))
            {
                Decisions.Add((second, decision));
                guests.Single(g => g.Name == decision.Vm).Obey(decision.To);
            }
        }
    }

    /// <summary>A recorded load: lines of <c>second,MiB</c>, straight between them.</summary>
    internal static Func<double, double> Recorded(string csv)
    {
        (double At, double MiB)[] points = [.. csv.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Where(l => char.IsAsciiDigit(l[0]))
            .Select(l => l.Split(','))
            .Select(f => (double.Parse(f[0], CultureInfo.InvariantCulture), double.Parse(f[1], CultureInfo.InvariantCulture)))];
        return second =>
        {
            int next = Array.FindIndex(points, p => p.At > second);
            return next <= 0 ? points[next < 0 ? ^1 : 0].MiB
                : points[next - 1].MiB + ((points[next].MiB - points[next - 1].MiB) * (second - points[next - 1].At)
                    / (points[next].At - points[next - 1].At));
        };
    }

    private static ulong Sum(IEnumerable<SimulatedGuest> guests) => guests.Aggregate(0UL, (sum, g) => sum + g.Present);
}
