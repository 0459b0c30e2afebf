using Vmm.Spec;

namespace Vmm.Daemon.Pressure;

/// <summary>
/// The part of the policy that uses balloons: they come before limits, because what a guest has free costs nothing to take. Only those that
/// this loop may use get here: not the balancer's, and none that somebody gave a size.
/// </summary>
internal static class BalloonPressure
{
    private const ulong Block = BalanceSpec.BalloonBlock;

    /// <summary>Bytes that its balloon was asked for and is taking, as far as the host has something from that.</summary>
    internal static double Coming(PressureSeat seat, PressureRules rules, TimeSpan now) =>
        seat.Vm.Balloon is { Taken: true } balloon && balloon.Held < balloon.Target
            && PressureSeat.Within(seat.Memo.Inflation?.At, rules.Stuck, now)
            ? (balloon.Target - balloon.Held) * Yield(seat, balloon)
            : 0;

    /// <summary>Lets balloons take what guests have available beyond what they keep.</summary>
    /// <returns>Bytes that the pool will have from it.</returns>
    internal static double Take(PressurePool pool, PressureSeat[] all, double need, string why, PressureRules rules, TimeSpan now)
    {
        double taken = 0;
        foreach ((PressureSeat seat, ulong spare) in all
            .Select(seat => (Seat: seat, Spare: Spare(seat, rules, now)))
            .Where(c => c.Spare > 0 && c.Seat.Share(pool.Node) > 0)
            .OrderByDescending(c => c.Spare / c.Seat.Weight)
            .ThenBy(c => c.Seat.Vm.Vm, StringComparer.Ordinal))
        {
            if (taken >= need)
            {
                break;
            }

            PressedBalloon balloon = seat.Vm.Balloon!;
            seat.BalloonTarget = balloon.Target + spare;
            seat.Reason = $"{why}; the guest says that {PressureSeat.Size(balloon.Available ?? 0)} of its "
                + $"{PressureSeat.Size(Memory(balloon))} are available";
            taken += spare * Yield(seat, balloon) * seat.Share(pool.Node);
        }

        return taken;
    }

    /// <summary>A guest that needs what its balloon has gets it back, however the host stands, and is left alone for a while.</summary>
    internal static void Relieve(PressureSeat[] all, PressureRules rules, TimeSpan now)
    {
        foreach (PressureSeat seat in all)
        {
            if (seat.Vm.Balloon is not { Taken: true, Target: > 0 } balloon)
            {
                continue;
            }

            bool isShort = balloon.Available is { } left && left < Memory(balloon) * rules.BalloonLow;
            bool isRefused = balloon.Held < balloon.Target
                && !PressureSeat.Within(seat.Memo.Inflation?.At, rules.Stuck, now);
            if (isShort || isRefused)
            {
                seat.Memo.NoBalloonBefore = now + rules.BalloonRest;
            }

            if (isShort && !PressureSeat.Within(seat.Memo.Ballooned, rules.TakeRest, now))
            {
                ulong half = balloon.Target / 2;
                seat.BalloonTarget = half < rules.LeastStep ? 0 : half - (half % Block);
                seat.Reason = $"the guest has only {PressureSeat.Size(balloon.Available!.Value)} available";
            }
            else if (isRefused && balloon.Held < balloon.Target - (balloon.Target % Block))
            {
                seat.BalloonTarget = balloon.Held - (balloon.Held % Block); // asking on would only cost it
                seat.Reason = "the guest does not give more";
            }
        }
    }

    /// <summary>Gives back what balloons have, after all limits.</summary>
    internal static void GiveBack(PressureSeat[] all, double room, string why, PressureRules rules, TimeSpan now)
    {
        foreach (PressureSeat seat in all)
        {
            if (seat.Vm.Balloon is { Taken: true, Target: > 0 } balloon && seat.BalloonTarget == balloon.Target
                && !PressureSeat.Within(seat.Memo.Ballooned, rules.GiveRest, now) && room >= Block)
            {
                ulong back = Math.Min(balloon.Target, Math.Min(Step(balloon, rules), (ulong)room));
                back = back == balloon.Target ? back : back - (back % Block);
                seat.BalloonTarget = balloon.Target - back;
                seat.Reason = why;
                room -= back;
            }
        }
    }

    private static ulong Spare(PressureSeat seat, PressureRules rules, TimeSpan now)
    {
        if (seat.Vm.Balloon is not { Available: { } available } balloon || !(balloon.Taken || balloon.Target == 0)
            || seat.BalloonTarget != balloon.Target || balloon.Held < balloon.Target || now < seat.Memo.NoBalloonBefore
            || PressureSeat.Within(seat.Memo.Ballooned, rules.TakeRest, now))
        {
            return 0;
        }

        ulong memory = Memory(balloon), keep = (ulong)(memory * rules.BalloonKeep), floor = seat.Vm.Least;
        ulong spare = Math.Min(available > keep ? available - keep : 0, memory > floor ? memory - floor : 0);
        spare = Math.Min(spare, Step(balloon, rules));
        return spare - (spare % Block);
    }

    // Of the pages that a balloon takes, as many are resident as of the others.
    private static double Yield(PressureSeat seat, PressedBalloon balloon) =>
        Math.Min(1, (double)seat.Base / Math.Max(1, Memory(balloon)));

    private static ulong Step(PressedBalloon balloon, PressureRules rules) =>
        Math.Max(rules.LeastStep, (ulong)(balloon.Memory * rules.BalloonStep));

    private static ulong Memory(PressedBalloon balloon) => balloon.Memory - Math.Min(balloon.Memory, balloon.Held);
}
