using Vmm.Memory;

namespace Vmm.Daemon.Pressure;

/// <summary>A VM within one round.</summary>
internal sealed class PressureSeat
{
    private const ulong Page = ByteSize.BytesPerPage;

    /// <param name="vm">The VM.</param>
    /// <param name="memo">What is remembered of it.</param>
    /// <param name="rules">The numbers.</param>
    /// <param name="now">The time.</param>
    internal PressureSeat(PressedVm vm, PressureState.Memo memo, PressureRules rules, TimeSpan now)
    {
        (Vm, Memo, Limit) = (vm, memo, vm.InForce);
        BalloonTarget = vm.Balloon?.Target ?? 0;
        Learn(rules, now);
        // What it does not use it cannot give: a limit above what is resident takes nothing.
        Base = Math.Min(Math.Min(vm.InForce, vm.Configured), vm.Resident);
        ulong step = Math.Max(rules.LeastStep, (ulong)(Base * rules.Step));
        Lowest = Math.Max(vm.Least, Base - Math.Min(step, Base));
        Lowest += (Page - (Lowest % Page)) % Page;
        step = Math.Max(rules.LeastStep, (ulong)(vm.Configured * rules.Step));
        Highest = Math.Min(vm.Configured, Math.Max(vm.Least, vm.InForce + step));
        Weight = vm.Weight * (memo.IsHot ? rules.HotFactor : 1);
        bool isDraining = !vm.Stopped && Within(memo.Drain?.At, rules.Stuck, now);
        Coming = isDraining && vm.Resident > vm.InForce ? vm.Resident - vm.InForce : 0;
        MayGrow = Within(memo.Raised, rules.Settle, now) && vm.InForce > vm.Resident ? vm.InForce - vm.Resident : 0;
        MayTake = !vm.Stopped && !Within(memo.Changed, rules.TakeRest, now) && Lowest < Base;
        MayGive = !Within(memo.Changed, rules.GiveRest, now);
    }

    internal PressedVm Vm { get; }

    internal PressureState.Memo Memo { get; }

    /// <summary>The limit that it is to have, bytes.</summary>
    internal ulong Limit { get; set; }

    /// <summary>The balloon that it is to have, bytes.</summary>
    internal ulong BalloonTarget { get; set; }

    /// <summary>Why one of the two changes.</summary>
    internal string Reason { get; set; } = "";

    /// <summary>What of its limit is in use: taking begins there.</summary>
    internal ulong Base { get; }

    /// <summary>How far one step may lower its limit, and raise it.</summary>
    internal ulong Lowest { get; }

    internal ulong Highest { get; }

    internal double Weight { get; }

    /// <summary>Bytes that are on their way back to the host: more is resident than the limit says.</summary>
    internal ulong Coming { get; }

    /// <summary>Bytes by which it may still grow since its limit was raised.</summary>
    internal ulong MayGrow { get; }

    internal bool MayTake { get; }

    internal bool MayGive { get; }

    /// <summary>Something of its limit is taken.</summary>
    internal bool IsSqueezed => Vm.InForce < Vm.Configured;

    /// <summary>How much of its memory counts for a node; null: for the host.</summary>
    internal double Share(int? node) => node is { } number ? Vm.Nodes.GetValueOrDefault(number) : 1;

    internal static bool Within(TimeSpan? at, TimeSpan span, TimeSpan now) => at is { } then && now - then < span;

    /// <summary>A size for people: whole MiB.</summary>
    internal static string Size(ulong bytes) => FormattableString.Invariant($"{bytes >> 20} MiB");

    /// <summary>What its counters and its memory say since the last look.</summary>
    private void Learn(PressureRules rules, TimeSpan now)
    {
        if (Vm.Resident <= Vm.InForce || Memo.Drain is not { } drain || Vm.Resident < drain.Resident)
        {
            Memo.Drain = (Vm.Resident, now);
        }

        if (Vm.Balloon is { } balloon
            && (balloon.Held >= balloon.Target || Memo.Inflation is not { } inflation || balloon.Held > inflation.Held))
        {
            Memo.Inflation = (balloon.Held, now);
        }

        if (Memo.Counters is { } last && now > last.At)
        {
            double reads = Since(Vm.PagesIn, last.In) * Page / (now - last.At).TotalSeconds;
            double touched = Since(Vm.StagedFaults, last.Staged), tried = touched + Since(Vm.PagesOut, last.Out);
            Memo.IsHot = reads >= Math.Max(rules.LeastStep, Vm.Resident) * rules.HotReads
                || (tried >= 1024 && touched >= tried * rules.HotTouches);
        }

        Memo.Counters = (Vm.PagesIn, Vm.PagesOut, Vm.StagedFaults, now);
    }

    // Those of a worker that was started anew begin at zero.
    private static double Since(ulong now, ulong before) => now > before ? now - before : 0;
}

/// <summary>Memory that can be short: the host's, or one node's for the VMs that are bound to it.</summary>
/// <param name="Name">For people.</param>
/// <param name="Node">Its number; null: the host.</param>
/// <param name="Available">Bytes that programs could get.</param>
/// <param name="Low">Bytes below which it is short.</param>
/// <param name="High">Bytes above which something may be given back.</param>
internal sealed record PressurePool(string Name, int? Node, ulong Available, ulong Low, ulong High)
{
    /// <summary>The host, and each of its nodes when there are several.</summary>
    internal static IReadOnlyList<PressurePool> Of(PressureSnapshot snapshot, PressureRules rules)
    {
        HostReading host = snapshot.Host;
        ulong total = host.TotalBytes;
        List<PressurePool> pools = [Make("the host", null, host.AvailableBytes, snapshot.Reserve)];
        foreach (NodeReading node in host.Nodes.Count > 1 ? host.Nodes : [])
        {
            double part = (double)node.TotalBytes / total;
            pools.Add(Make(
                FormattableString.Invariant($"host node {node.Node}"), node.Node, node.AvailableBytes, (ulong)(snapshot.Reserve * part)));
        }

        return pools;

        PressurePool Make(string name, int? node, ulong available, ulong low) =>
            new(name, node, available, low, (ulong)(low * rules.High));
    }
}
