namespace Vmm.Daemon.Pressure;

/// <summary>
/// From which VMs memory is taken when the host is short, and to whom it is given back: docs/overcommit.md has it in words. It reads no
/// clock and does no I/O; the same snapshots in the same order give the same decisions. Between vnodes the balancer decides.
/// </summary>
internal static class PressurePolicy
{
    /// <summary>One round.</summary>
    /// <param name="snapshot">How it is.</param>
    /// <param name="state">What earlier rounds left; changed.</param>
    /// <param name="rules">The numbers.</param>
    /// <param name="now">Any clock that only goes forward.</param>
    internal static IReadOnlyList<PressureDecision> Decide(
        PressureSnapshot snapshot, PressureState state, PressureRules rules, TimeSpan now)
    {
        PressureSeat[] seats = Seats(snapshot, state, rules, now);
        foreach (PressureSeat seat in seats.Where(s => s.Vm.InForce > s.Vm.Configured
            && !PressureSeat.Within(s.Memo.Changed, rules.TakeRest, now)))
        {
            (seat.Limit, seat.Reason) = (seat.Vm.Configured, "it had a higher limit than its spec says");
        }

        if (!snapshot.Enabled)
        {
            state.CalmSince = null;
            EndAll(seats);
        }
        else if (snapshot.Host.Nodes.Count > 0)
        {
            Press(snapshot, seats, state, rules, now);
        }

        return Conclude(seats, now);
    }

    private static PressureSeat[] Seats(PressureSnapshot snapshot, PressureState state, PressureRules rules, TimeSpan now)
    {
        HashSet<string> known = [.. snapshot.Vms.Select(vm => vm.Vm)];
        foreach (string gone in state.Vms.Keys.Where(name => !known.Contains(name)).ToArray())
        {
            state.Vms.Remove(gone);
        }

        List<PressureSeat> seats = [];
        foreach (PressedVm vm in snapshot.Vms.OrderBy(vm => vm.Vm, StringComparer.Ordinal))
        {
            if (!state.Vms.TryGetValue(vm.Vm, out PressureState.Memo? memo))
            {
                state.Vms[vm.Vm] = memo = new PressureState.Memo();
            }

            seats.Add(new PressureSeat(vm, memo, rules, now));
        }

        return [.. seats];
    }

    /// <summary>The loop is off: nobody keeps what it took.</summary>
    private static void EndAll(PressureSeat[] seats)
    {
        foreach (PressureSeat seat in seats)
        {
            if (seat.IsSqueezed || seat.Vm.Balloon is { Taken: true, Target: > 0 })
            {
                seat.Limit = seat.Vm.Configured;
                seat.BalloonTarget = seat.Vm.Balloon is { Taken: true } ? 0 : seat.BalloonTarget;
                seat.Reason = "the pressure loop is off";
            }
        }
    }

    private static void Press(PressureSnapshot snapshot, PressureSeat[] seats, PressureState state, PressureRules rules, TimeSpan now)
    {
        IReadOnlyList<PressurePool> pools = PressurePool.Of(snapshot, rules);
        bool isStalled = snapshot.Host.Stall is { } stall && stall.Some >= rules.Stall;
        BalloonPressure.Relieve(seats, rules, now);
        foreach (PressurePool pool in pools)
        {
            double need = Need(pool, seats, isStalled, rules, now);
            if (need > 0)
            {
                string why = Why(pool, isStalled, snapshot.Host.Stall);
                need -= BalloonPressure.Take(pool, seats, need, why, rules, now);
                Take(pool, seats, need, why, rules);
            }
        }

        // Tasks that wait while there is twice as much wait for something else, such as the limit of a control group.
        ulong times = isStalled ? 2UL : 1;
        bool isCalm = pools.All(pool => pool.Available > times * pool.High || (pool.Node is not null && !Concerns(pool, seats)));
        state.CalmSince = isCalm ? state.CalmSince ?? now : null;
        if (state.CalmSince is { } since && now - since >= rules.Calm)
        {
            GiveBack(pools, seats, rules, now);
        }
    }

    private static bool Concerns(PressurePool pool, PressureSeat[] seats) => seats.Any(seat => seat.Share(pool.Node) > 0);

    /// <summary>Bytes that lack, without those that are on their way.</summary>
    private static double Need(PressurePool pool, PressureSeat[] seats, bool isStalled, PressureRules rules, TimeSpan now)
    {
        if (pool.Available >= (isStalled ? pool.High : pool.Low))
        {
            return 0;
        }

        double goal = isStalled ? pool.High : pool.Low + ((pool.High - pool.Low) * rules.Goal);
        double coming = seats.Sum(seat => seat.Share(pool.Node)
            * (seat.Coming + BalloonPressure.Coming(seat, rules, now) + (seat.Limit < seat.Base ? seat.Base - seat.Limit : 0)));
        return goal - pool.Available - coming;
    }

    private static string Why(PressurePool pool, bool isStalled, MemoryStall? stall) =>
        $"{pool.Name} has {PressureSeat.Size(pool.Available)} available, below {PressureSeat.Size(isStalled ? pool.High : pool.Low)}"
        + (isStalled ? FormattableString.Invariant($" while its tasks wait for memory {stall!.Some * 100:0} % of the time") : "");

    /// <summary>Lowers limits until the need is met, by weight: nobody by more than a step, or below what is its least.</summary>
    private static void Take(PressurePool pool, PressureSeat[] all, double need, string why, PressureRules rules)
    {
        PressureSeat[] seats = [.. all.Where(seat => seat.MayTake && seat.Share(pool.Node) > 0)];
        WaterLevel.Vessel[] vessels =
        [
            .. seats.Select(s => new WaterLevel.Vessel(Math.Min(s.Limit, s.Base), s.Lowest, s.Weight, s.Share(pool.Node))),
        ];
        if (need <= 0 || seats.Length == 0)
        {
            return;
        }

        double level = WaterLevel.Taking(vessels, need);
        for (int i = 0; i < seats.Length; i++)
        {
            PressureSeat seat = seats[i];
            ulong to = vessels[i].Down(level);
            if (to < vessels[i].From)
            {
                seat.Limit = Math.Max(seat.Lowest, to - (to % rules.Grain));
                seat.Reason = $"{why}; {PressureSeat.Size(seat.Vm.Resident)} of it are resident, its weight is {seat.Vm.Weight}"
                    + (seat.Memo.IsHot ? ", doubled because it waits for its pages" : "");
            }
        }
    }

    /// <summary>Raises limits as far as the host, and the nodes that VMs are bound to, have room beyond the high mark.</summary>
    private static void GiveBack(IReadOnlyList<PressurePool> pools, PressureSeat[] all, PressureRules rules, TimeSpan now)
    {
        PressureSeat[] seats = [.. all.Where(seat => seat.IsSqueezed && seat.MayGive && seat.Limit == seat.Vm.InForce)];
        ulong[] bounds = [.. seats.Select(seat => seat.Highest)];
        double left = 0;
        foreach (PressurePool pool in pools.Reverse()) // the host is the last: it shares what the nodes leave
        {
            left = pool.Available - (double)pool.High - all.Sum(seat => seat.Share(pool.Node) * seat.MayGrow);
            int[] here = [.. Enumerable.Range(0, seats.Length).Where(i => seats[i].Share(pool.Node) > 0)];
            WaterLevel.Vessel[] vessels =
            [
                .. here.Select(i => new WaterLevel.Vessel(seats[i].Limit, bounds[i], seats[i].Weight, seats[i].Share(pool.Node))),
            ];
            double level = left > 0 ? WaterLevel.Giving(vessels, left) : 0;
            for (int k = 0; k < here.Length; k++)
            {
                bounds[here[k]] = vessels[k].Up(level);
            }
        }

        string why = $"the host has {PressureSeat.Size(pools[0].Available)} available, above {PressureSeat.Size(pools[0].High)}";
        for (int i = 0; i < seats.Length; i++)
        {
            PressureSeat seat = seats[i];
            ulong to = bounds[i] == seat.Vm.Configured ? bounds[i] : bounds[i] - (bounds[i] % rules.Grain);
            if (to > seat.Limit && to >= seat.Vm.Least)
            {
                left -= to - seat.Limit;
                (seat.Limit, seat.Reason) = (to, $"{why}; its weight is {seat.Vm.Weight}");
            }
        }

        if (!all.Any(seat => seat.IsSqueezed))
        {
            BalloonPressure.GiveBack(all, left, why, rules, now);
        }
    }

    private static List<PressureDecision> Conclude(PressureSeat[] seats, TimeSpan now)
    {
        List<PressureDecision> decisions = [];
        foreach (PressureSeat seat in seats)
        {
            if (seat.Limit != seat.Vm.InForce)
            {
                decisions.Add(new PressureDecision(seat.Vm.Vm, PressureMeans.Limit, seat.Vm.InForce, seat.Limit, seat.Reason));
                seat.Memo.Changed = now;
                seat.Memo.Raised = seat.Limit > seat.Vm.InForce ? now : seat.Memo.Raised;
                seat.Memo.Drain = (seat.Vm.Resident, now);
            }

            if (seat.Vm.Balloon is { } balloon && seat.BalloonTarget != balloon.Target)
            {
                decisions.Add(new PressureDecision(seat.Vm.Vm, PressureMeans.Balloon, balloon.Target, seat.BalloonTarget, seat.Reason));
                seat.Memo.Ballooned = now;
                seat.Memo.Inflation = (balloon.Held, now);
            }
        }

        return decisions;
    }
}
