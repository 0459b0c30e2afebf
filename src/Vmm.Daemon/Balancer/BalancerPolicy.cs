using System.Globalization;
using Vmm.Memory;

namespace Vmm.Daemon.Balancer;

/// <summary>
/// Which vnodes grow and which shrink: docs/balancer.md has it in words. It reads no clock and does no I/O; the same snapshots in the same
/// order give the same decisions.
/// </summary>
public static class BalancerPolicy
{
    private const int Anywhere = -1;

    /// <summary>One round.</summary>
    /// <param name="snapshot">How it is.</param>
    /// <param name="state">What earlier rounds left; changed.</param>
    /// <param name="rules">The numbers.</param>
    /// <param name="now">Any clock that only goes forward.</param>
    public static IReadOnlyList<BalancerDecision> Decide(BalancerSnapshot snapshot, BalancerState state, BalancerRules rules, TimeSpan now)
    {
        List<BalancerDecision> decisions = [];
        Forget(state, snapshot);
        Candidate[] candidates = [.. from vnode in snapshot.Vnodes.OrderBy(v => v.Vm, StringComparer.Ordinal).ThenBy(v => v.Vnode)
                                     where vnode.Balanced && vnode.Most > vnode.Least
                                     select new Candidate(vnode, MemoOf(state, vnode, now))];
        foreach (Candidate candidate in candidates)
        {
            Judge(candidate, rules, now, decisions);
        }

        foreach (IGrouping<int, Candidate> node in candidates.GroupBy(c => c.Vnode.HostNode ?? Anywhere))
        {
            (long room, string host) = Room(snapshot, rules, node.Key);
            Balance([.. node], room, host, rules, now, decisions);
        }

        foreach (BalancerDecision decision in decisions)
        {
            state.Vnodes[(decision.Vm, decision.Vnode)].Changed = now;
        }

        return decisions;
    }

    private static void Forget(BalancerState state, BalancerSnapshot snapshot)
    {
        HashSet<(string, int)> known = [.. snapshot.Vnodes.Select(v => (v.Vm, v.Vnode))];
        foreach ((string, int) gone in state.Vnodes.Keys.Where(k => !known.Contains(k)).ToArray())
        {
            state.Vnodes.Remove(gone);
        }
    }

    private static BalancerState.VnodeMemo MemoOf(BalancerState state, VnodeSample vnode, TimeSpan now)
    {
        if (!state.Vnodes.TryGetValue((vnode.Vm, vnode.Vnode), out BalancerState.VnodeMemo? memo))
        {
            state.Vnodes[(vnode.Vm, vnode.Vnode)] = memo = new BalancerState.VnodeMemo { Progress = (vnode.Present, now) };
        }

        if (memo.Progress.Present != vnode.Present || vnode.Present == vnode.Asked)
        {
            memo.Progress = (vnode.Present, now);
        }

        return memo;
    }

    /// <summary>What one vnode needs, or could give.</summary>
    private static void Judge(Candidate candidate, BalancerRules rules, TimeSpan now, List<BalancerDecision> decisions)
    {
        (VnodeSample vnode, BalancerState.VnodeMemo memo) = (candidate.Vnode, candidate.Memo);
        if (vnode.Present > vnode.Asked)
        {
            JudgeWhatIsOwed(vnode, memo, rules, now, decisions);
            return;
        }

        if (vnode.Present < vnode.Asked || vnode.Available is not { } available || vnode.Present == 0)
        {
            memo.SpareSince = null;
            return; // on its way, or nothing is known of it
        }

        double share = (double)available / vnode.Present;
        ulong step = Math.Max(vnode.Block, (ulong)(vnode.Present * rules.Step));
        if (share < rules.Low || vnode.Stall >= rules.Stall)
        {
            Wish(candidate, available, step, rules, now);
        }
        else if (share > rules.High && vnode.Asked > vnode.Least)
        {
            Offer(candidate, available, step, rules, now);
        }
        else
        {
            memo.SpareSince = null;
        }
    }

    /// <summary>It was asked to give back and has not yet: when it never will, it keeps that and is left alone for a while.</summary>
    private static void JudgeWhatIsOwed(
        VnodeSample vnode, BalancerState.VnodeMemo memo, BalancerRules rules, TimeSpan now, List<BalancerDecision> decisions)
    {
        // A balloon deflates by itself when the guest runs out of memory (VIRTIO 1.2, 5.5.6); what it was asked for would only be taken
        // again.
        bool tookBack = vnode is { ByBalloon: true, Available: { } rest } && rest < vnode.Present * rules.Low;
        if (!tookBack && now - memo.Progress.At < rules.Stuck)
        {
            return;
        }

        // The guest keeps it: asking on would only cost it.
        Rest(memo, rules, now);
        ulong kept = Math.Min(vnode.Most, vnode.Least + Blocks(vnode, vnode.Present - vnode.Least, up: true));
        decisions.Add(new BalancerDecision(vnode.Vm, vnode.Vnode, vnode.Asked, kept,
            (tookBack
                ? $"it needs the {Size(vnode.Present - vnode.Asked)} that its balloon was asked for"
                : $"it has not given back {Size(vnode.Present - vnode.Asked)} in {rules.Stuck.TotalSeconds:0} s")
            + $" and keeps it; not asked again for {(memo.NoShrinkBefore - now).TotalSeconds:0} s"));
    }

    /// <summary>It has too little: what it would get if there is room.</summary>
    private static void Wish(Candidate candidate, ulong available, ulong step, BalancerRules rules, TimeSpan now)
    {
        (VnodeSample vnode, BalancerState.VnodeMemo memo) = (candidate.Vnode, candidate.Memo);
        if (memo.Changed > TimeSpan.MinValue && now - memo.Changed < rules.ShrinkRest && memo.SpareSince is not null)
        {
            Rest(memo, rules, now); // what was taken is missing at once: it was no spare memory
        }

        memo.SpareSince = null;
        candidate.Wish = Math.Min(vnode.Most - vnode.Asked, Blocks(vnode, step, up: true));
        candidate.Why = vnode.Stall >= rules.Stall
            ? $"its tasks waited for memory {Percent(vnode.Stall.Value)} of the time"
            : AvailableShare(vnode, available, "below", rules.Low);
    }

    /// <summary>It has more than it needs: what may be taken from it.</summary>
    private static void Offer(Candidate candidate, ulong available, ulong step, BalancerRules rules, TimeSpan now)
    {
        (VnodeSample vnode, BalancerState.VnodeMemo memo) = (candidate.Vnode, candidate.Memo);
        memo.SpareSince ??= now;
        ulong keep = (ulong)(rules.Keep * vnode.Present);
        candidate.Spare = Math.Min(
            Blocks(vnode, Math.Min(vnode.Asked - vnode.Least, available - keep), up: false),
            Math.Max(vnode.Block, Blocks(vnode, step, up: false)));
        candidate.Unasked = vnode.ByBalloon
            ? Math.Min(candidate.Spare, Math.Max(vnode.Block, Blocks(vnode, (ulong)(vnode.Present * rules.BalloonStep), up: false)))
            : candidate.Spare;
        candidate.MayShrink = now >= memo.NoShrinkBefore
            && (memo.Changed == TimeSpan.MinValue || now - memo.Changed >= rules.ShrinkRest);
        candidate.Why = AvailableShare(vnode, available, "above", rules.High);
    }

    private static string AvailableShare(VnodeSample vnode, ulong available, string side, double limit) =>
        $"{Size(available)} of {Size(vnode.Present)} available ({Percent((double)available / vnode.Present)}, {side} {Percent(limit)})";

    /// <summary>
    /// One host node: what is wished is given as far as there is room, by weight; what lacks is asked back from those who have more than
    /// they need.
    /// </summary>
    private static void Balance(
        Candidate[] candidates, long room, string host, BalancerRules rules, TimeSpan now, List<BalancerDecision> decisions)
    {
        Candidate[] needy = [.. candidates.Where(c => c.Wish > 0)];
        ulong wished = needy.Aggregate(0UL, (sum, c) => sum + c.Wish), left = room > 0 ? (ulong)room : 0;
        foreach ((Candidate candidate, ulong grant) in Share(needy, left))
        {
            VnodeSample vnode = candidate.Vnode;
            string scarce = grant < candidate.Wish
                ? $"; {host} has room for {Size(left)} of {Size(wished)} wished, its weight is {vnode.Weight}"
                : "";
            decisions.Add(
                new BalancerDecision(vnode.Vm, vnode.Vnode, vnode.Asked, vnode.Asked + grant, $"it grows: {candidate.Why}{scarce}"));
        }

        long lacking = (long)wished - room;
        foreach (Candidate candidate in candidates.Where(c => c.Spare > 0 && c.MayShrink)
            .OrderByDescending(c => (double)c.Spare / c.Vnode.Weight)
            .ThenBy(c => c.Vnode.Vm, StringComparer.Ordinal)
            .ThenBy(c => c.Vnode.Vnode))
        {
            VnodeSample vnode = candidate.Vnode;
            bool idle = now - candidate.Memo.SpareSince >= rules.Idle;
            if (lacking <= 0 && !idle)
            {
                continue;
            }

            ulong give = lacking <= 0 ? candidate.Unasked
                : idle ? candidate.Spare
                : Math.Min(candidate.Spare, Blocks(vnode, (ulong)lacking, up: true));
            lacking -= (long)give;
            string why = idle
                ? $"for {(now - candidate.Memo.SpareSince!.Value).TotalSeconds:0} s"
                : $"and {host} lacks {Size((ulong)(lacking + (long)give))}";
            decisions.Add(
                new BalancerDecision(vnode.Vm, vnode.Vnode, vnode.Asked, vnode.Asked - give, $"it gives back: {candidate.Why} {why}"));
        }
    }

    /// <summary>
    /// Shares by weight, in whole blocks, nobody more than wished; what is left over by rounding goes to the first who still wants some.
    /// </summary>
    private static List<(Candidate Candidate, ulong Grant)> Share(Candidate[] needy, ulong left)
    {
        Dictionary<Candidate, ulong> grants = needy.ToDictionary(c => c, _ => 0UL);
        List<Candidate> open = [.. needy];
        while (open.Count > 0 && left > 0)
        {
            double weights = open.Sum(c => c.Vnode.Weight);
            ulong pot = left;
            bool moved = false;
            foreach (Candidate candidate in open.ToArray())
            {
                ulong more = Math.Min(
                    candidate.Wish - grants[candidate],
                    Blocks(candidate.Vnode, Math.Min(left, (ulong)(pot * (candidate.Vnode.Weight / weights))), up: false));
                (grants[candidate], left, moved) = (grants[candidate] + more, left - more, moved || more > 0);
                if (grants[candidate] == candidate.Wish)
                {
                    open.Remove(candidate);
                }
            }

            if (!moved)
            {
                Candidate? lucky = open.OrderByDescending(c => c.Vnode.Weight).FirstOrDefault(c => c.Vnode.Block <= left);
                if (lucky is null)
                {
                    break;
                }

                ulong one = Math.Min(lucky.Vnode.Block, lucky.Wish - grants[lucky]);
                (grants[lucky], left) = (grants[lucky] + one, left - one);
                if (grants[lucky] == lucky.Wish)
                {
                    open.Remove(lucky);
                }
            }
        }

        return [.. grants.Where(g => g.Value > 0)
            .Select(g => (g.Key, g.Value))
            .OrderBy(g => g.Key.Vnode.Vm, StringComparer.Ordinal)
            .ThenBy(g => g.Key.Vnode.Vnode)];
    }

    /// <summary>
    /// What a node can still give: neither more than is available now beyond the reserve, counting what guests have been promised and not
    /// taken, nor more than it has beyond all that guests may take.
    /// </summary>
    private static (long Room, string Name) Room(BalancerSnapshot snapshot, BalancerRules rules, int node)
    {
        long room = 0;
        foreach (HostSample host in snapshot.Hosts.Where(h => node == Anywhere || h.Node == node))
        {
            VnodeSample[] here = [.. snapshot.Vnodes.Where(v => v.HostNode == host.Node)];
            long pending = here.Sum(v => v.Asked > v.Present ? (long)(v.Asked - v.Present) : 0),
                promised = here.Sum(v => (long)Math.Max(v.Asked, v.Present)), reserve = (long)rules.ReserveOf(host);
            room += Math.Min((long)host.Available - pending, (long)host.Total - promised) - reserve;
        }

        if (node == Anywhere)
        {
            VnodeSample[] loose = [.. snapshot.Vnodes.Where(v => v.HostNode is null)];
            long total = snapshot.Hosts.Sum(h => (long)h.Total - (long)rules.ReserveOf(h)),
                promised = snapshot.Vnodes.Sum(v => (long)Math.Max(v.Asked, v.Present));
            room = Math.Min(room - loose.Sum(v => v.Asked > v.Present ? (long)(v.Asked - v.Present) : 0), total - promised);
        }

        return (room, node == Anywhere ? "the host" : string.Create(CultureInfo.InvariantCulture, $"host node {node}"));
    }

    private static void Rest(BalancerState.VnodeMemo memo, BalancerRules rules, TimeSpan now)
    {
        memo.Rest = memo.Rest == TimeSpan.Zero ? rules.ShrinkRest * 2
            : memo.Rest * 2 < rules.LongestRest ? memo.Rest * 2
            : rules.LongestRest;
        memo.NoShrinkBefore = now + memo.Rest;
    }

    private static ulong Blocks(VnodeSample vnode, ulong bytes, bool up) =>
        (up ? (bytes + vnode.Block - 1) / vnode.Block : bytes / vnode.Block) * vnode.Block;

    private static string Size(ulong bytes) => new ByteSize(bytes >> 20 << 20).ToString();

    private static string Percent(double share) => string.Create(CultureInfo.InvariantCulture, $"{share * 100:0} %");

    private sealed class Candidate(VnodeSample vnode, BalancerState.VnodeMemo memo)
    {
        internal VnodeSample Vnode { get; } = vnode;

        internal BalancerState.VnodeMemo Memo { get; } = memo;

        internal ulong Wish { get; set; }

        internal ulong Spare { get; set; }

        /// <summary>As much of it as is taken when nobody needs it.</summary>
        internal ulong Unasked { get; set; }

        internal bool MayShrink { get; set; }

        internal string Why { get; set; } = "";
    }
}
