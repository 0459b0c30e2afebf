using System.Globalization;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>
/// What an operator does with replicas: test failovers, failovers, and what ends them. Each step is written down before it is made, so that
/// a vmmd that dies finds what to finish or to undo (<see cref="RecoverySettling"/>).
/// </summary>
/// <param name="library">The replicas.</param>
/// <param name="makes">Makes the VMs.</param>
/// <param name="users">Knows who stands on points.</param>
/// <param name="jobs">What takes time.</param>
internal sealed class Recoveries(ReplicaLibrary library, RecoveryVms makes, PointUsers users, Jobs jobs)
{
    private const int MostTests = 32;

    /// <summary>One replica, as an operator sees it.</summary>
    internal RecoveryInfo Describe(Replica replica)
    {
        SiteRecord record = replica.Record;
        IReadOnlyList<ArrangedPoint> points = replica.Damage is null ? replica.Points.Points : [];
        IReadOnlyDictionary<int, SortedSet<string>> used =
            replica.Damage is null ? users.Of(replica) : new Dictionary<int, SortedSet<string>>();
        return new RecoveryInfo(
            record.Name,
            record.Vm,
            record.Source,
            record.State,
            [.. points.Select(point => new RecoveryPoint(
                point.Number, point.Point.Id.ToString(), point.Point.Time, point.Point.Quiesced, point.Point.IsLast,
                replica.Guarded(() => replica.Points.BytesOf(point)), [.. used.GetValueOrDefault(point.Number) ?? []]))],
            record.Keep,
            points.Count > 0 ? Math.Max(0, (TimeProvider.System.GetUtcNow() - points[^1].Point.Time).TotalSeconds) : null,
            replica.IntakeInfo(),
            record.Failover?.Vm,
            [.. record.Tests.Where(users.IsThere).Select(test => test.Vm)],
            record.Generations,
            replica.Damage ?? (record.IsPaired ? null : "its primary has ended the pairing: no more points come"));
    }

    /// <summary>Begins a test failover.</summary>
    /// <exception cref="ApiException">It cannot be.</exception>
    internal JobInfo Test(Replica replica, FailoverWish wish, Principal who)
    {
        if (wish.Networks is not null || wish.Confirm is not null)
        {
            throw Invalid("networks and confirm are for failovers; a test has --network, or none");
        }

        ArrangedPoint point = Choose(replica, wish.Point);
        string name = wish.As ?? FreeName(replica);
        RequireName(name);
        _ = makes.Plan(replica, point, name, isTest: true, wish);
        return jobs.Start("replica-test-failover", replica.Name, who, (progress, cancellation) =>
            TestAsync(replica, point.Point.Id, name, wish, progress, cancellation));
    }

    /// <summary>Begins a failover.</summary>
    /// <exception cref="ApiException">It cannot be, or would lose what nobody has confirmed to lose.</exception>
    internal JobInfo Failover(Replica replica, FailoverWish wish, Principal who)
    {
        if (wish.Network is not null)
        {
            throw Invalid("network is for test failovers; a failover maps networks, FROM=TO");
        }

        _ = ReplicaStates.Next(replica.Name, replica.Record.State, ReplicaEvent.Failover);
        ArrangedPoint point = Choose(replica, wish.Point);
        RequireConfirmed(replica, point, wish);
        string name = wish.As ?? replica.Name;
        RequireName(name);
        _ = makes.Plan(replica, point, name, isTest: false, wish);
        return jobs.Start("replica-failover", replica.Name, who, (progress, cancellation) =>
            InTurnAsync(replica, () => FailoverAsync(replica, name, wish, progress, cancellation)));
    }

    /// <summary>Makes a failover final.</summary>
    /// <exception cref="ApiException">There is none, or its VM is gone.</exception>
    internal async Task<RecoveryInfo> CommitAsync(Replica replica, CancellationToken cancellation)
    {
        await InTurnAsync(replica, async () =>
        {
            SiteRecord record = await replica.ChangeAsync(
                record =>
                {
                    ReplicaSiteState next = ReplicaStates.Next(record.Name, record.State, ReplicaEvent.Commit);
                    return record.Failover is { Step: FailoverStep.Made } && makes.IsThere(record.Vm)
                        ? record with { State = next }
                        : throw new ApiException(409, "replica-no-vm", "the VM of the failover is not there",
                            $"{record.Name}: {record.Failover?.Vm} was deleted: cancel the failover instead");
                },
                cancellation).ConfigureAwait(false);
            library.Tell(record.Name, $"its failover to {record.Failover!.Vm} is final: this host has the VM now");
        }).ConfigureAwait(false);
        return Describe(replica);
    }

    /// <summary>Begins to take a failover back: its VM goes with what it has written, and points are taken again.</summary>
    /// <exception cref="ApiException">There is none.</exception>
    internal JobInfo Cancel(Replica replica, Principal who)
    {
        _ = ReplicaStates.Next(replica.Name, replica.Record.State, ReplicaEvent.Cancel);
        return jobs.Start("replica-cancel", replica.Name, who, (_, cancellation) =>
            InTurnAsync(replica, () => CancelAsync(replica, cancellation)));
    }

    /// <summary>Takes a failover back. Done again after a death, it goes on.</summary>
    internal async Task CancelAsync(Replica replica, CancellationToken cancellation)
    {
        SiteRecord record = await replica.ChangeAsync(
            record =>
            {
                _ = ReplicaStates.Next(record.Name, record.State, ReplicaEvent.Cancel);
                return record with { Failover = record.Failover! with { Step = FailoverStep.Cancelling } };
            },
            cancellation).ConfigureAwait(false);
        await makes.RemoveAsync(record.Vm, cancellation).ConfigureAwait(false);
        _ = await replica.ChangeAsync(Undone, CancellationToken.None).ConfigureAwait(false);
        library.Tell(record.Name, $"its failover to {record.Failover!.Vm} was cancelled: points are taken again");
    }

    /// <summary>Removes the VM of a test.</summary>
    /// <exception cref="ApiException">There is no such test, or its VM does not go.</exception>
    internal async Task RemoveTestAsync(Replica replica, string vm, CancellationToken cancellation)
    {
        TestRecord test = replica.Record.Tests.FirstOrDefault(test => string.Equals(test.Vm, vm, StringComparison.Ordinal))
            ?? throw new ApiException(404, "replica-no-test", "no such test", $"{replica.Name}: {vm} is no test failover of it");
        await makes.RemoveAsync(test.VmId, cancellation).ConfigureAwait(false);
        await ForgetAsync(replica, test).ConfigureAwait(false);
        library.Tell(replica.Name, $"the test failover {vm} was removed");
    }

    /// <summary>Begins to read all of a point, and to compare its hashes.</summary>
    /// <exception cref="ApiException">There is no such point.</exception>
    internal JobInfo Verify(Replica replica, FailoverWish wish, Principal who)
    {
        if (wish != new FailoverWish(wish.Point))
        {
            throw Invalid("a verification takes a point, and nothing else");
        }

        ArrangedPoint point = Choose(replica, wish.Point);
        return jobs.Start("replica-verify", replica.Name, who, async (progress, cancellation) =>
        {
            using IDisposable held = await replica.Points.HoldAsync(cancellation).ConfigureAwait(false);
            ArrangedPoint now = Require(replica, point.Point.Id);
            await Task.Run(
                () => replica.Guarded(() =>
                {
                    replica.Points.Verify(now, new ToolProgress(progress, cancellation));
                    return true;
                }),
                cancellation).ConfigureAwait(false);
            library.Tell(replica.Name, $"point {now.Number} is whole: every disk has the hash that its primary sealed");
        });
    }

    /// <summary>Deletes a replica with its points.</summary>
    /// <exception cref="ApiException">It is failed over, or VMs stand on it.</exception>
    internal async Task DeleteAsync(Replica replica, CancellationToken cancellation)
    {
        await replica.Use.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            await library.DeleteAsync(replica, () => users.AllOf(replica), cancellation).ConfigureAwait(false);
        }
        finally
        {
            _ = replica.Use.Release();
        }
    }

    /// <summary>The record without its failover.</summary>
    internal static SiteRecord Undone(SiteRecord record) => record.Failover is not { } failover ? record : record with
    {
        State = ReplicaSiteState.Receiving,
        Generations = failover.Before,
        Failover = null,
    };

    private async Task TestAsync(
        Replica replica, Guid id, string name, FailoverWish wish, Action<double> progress, CancellationToken cancellation)
    {
        string vm = Guid.NewGuid().ToString();
        await replica.Use.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            ArrangedPoint point = Require(replica, id);
            RecoverySpec plan = makes.Plan(replica, point, name, isTest: true, wish);
            TestRecord test = new(name, vm, point.Number);
            users.Making[vm] = true;
            try
            {
                _ = await replica.ChangeAsync(record => With(record, test), cancellation).ConfigureAwait(false);
                await makes.MakeAsync(replica, point, plan, vm, cancellation).ConfigureAwait(false);
            }
            catch
            {
                await ForgetAsync(replica, test).ConfigureAwait(false);
                throw;
            }
            finally
            {
                _ = users.Making.TryRemove(vm, out _);
            }

            string without = plan.LeftOut.Count > 0 ? $", without {string.Join(", ", plan.LeftOut)}" : "";
            library.Tell(replica.Name, $"{name} is a test of point {point.Number} ({At(point)}){without}");
        }
        finally
        {
            _ = replica.Use.Release();
        }

        progress(0.5);
        if (wish.Start != false)
        {
            await makes.StartAsync(name, cancellation).ConfigureAwait(false);
        }
    }

    private async Task FailoverAsync(
        Replica replica, string name, FailoverWish wish, Action<double> progress, CancellationToken cancellation)
    {
        await replica.SettleAsync(cancellation).ConfigureAwait(false); // a point that is nearly there is not lost
        await replica.Use.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            ArrangedPoint point = Choose(replica, wish.Point);
            RequireConfirmed(replica, point, wish);
            RecoverySpec plan = makes.Plan(replica, point, name, isTest: false, wish);
            SiteRecord record = await replica.ChangeAsync(
                record => record with
                {
                    State = ReplicaStates.Next(record.Name, record.State, ReplicaEvent.Failover),
                    Failover = new FailoverRecord(
                        name, point.Number, point.Point.Id.ToString(), FailoverStep.Making, record.Generations),
                    Generations = Pairing.Alone(record.Generations, Guid.NewGuid().ToString()),
                },
                cancellation).ConfigureAwait(false);
            try
            {
                await makes.MakeAsync(replica, point, plan, record.Vm, cancellation).ConfigureAwait(false);
            }
            catch
            {
                _ = await replica.ChangeAsync(Undone, CancellationToken.None).ConfigureAwait(false);
                throw;
            }

            _ = await replica.ChangeAsync(
                made => made with { Failover = made.Failover! with { Step = FailoverStep.Made } }, CancellationToken.None)
                .ConfigureAwait(false);
            library.Tell(replica.Name, $"it is failed over to {name}, as it was at point {point.Number} ({At(point)})");
        }
        finally
        {
            _ = replica.Use.Release();
        }

        progress(0.5);
        if (wish.Start != false)
        {
            await makes.StartAsync(name, cancellation).ConfigureAwait(false);
        }
    }

    private static async Task InTurnAsync(Replica replica, Func<Task> action)
    {
        if (!await replica.Failing.WaitAsync(TimeSpan.Zero).ConfigureAwait(false))
        {
            throw new ApiException(
                409, "replica-busy", "something else goes on", $"{replica.Name}: a failover or the end of one goes on: wait for its job");
        }

        try
        {
            await action().ConfigureAwait(false);
        }
        finally
        {
            _ = replica.Failing.Release();
        }
    }

    private Task<SiteRecord> ForgetAsync(Replica replica, TestRecord test) => replica.ChangeAsync(
        record => record with { Tests = [.. record.Tests.Where(each => each != test && users.IsThere(each))] }, CancellationToken.None);

    private SiteRecord With(SiteRecord record, TestRecord test)
    {
        TestRecord[] tests = [.. record.Tests.Where(users.IsThere), test];
        return tests.Length <= MostTests ? record with { Tests = tests } : throw Invalid(
            $"{record.Name}: there are {MostTests} test failovers, and no more are possible: remove some ('vmmctl vm delete')");
    }

    private string FreeName(Replica replica)
    {
        string stem = replica.Name.Length > 54 ? replica.Name[..54] : replica.Name; // names have 64 characters
        for (int i = 1; ; i++)
        {
            string name = string.Create(CultureInfo.InvariantCulture, $"{stem}-test-{i}");
            if (!makes.IsNameTaken(name) && !replica.Record.Tests.Any(test => users.IsThere(test)
                && string.Equals(test.Vm, name, StringComparison.Ordinal)))
            {
                return name;
            }
        }
    }

    // What would be lost cannot be known here: the primary may have written until it died, or be alive.
    private static void RequireConfirmed(Replica replica, ArrangedPoint point, FailoverWish wish)
    {
        ArrangedPoint newest = replica.Points.Newest!;
        if ((newest.Number == point.Number && newest.Point.IsLast) || string.Equals(wish.Confirm, replica.Name, StringComparison.Ordinal))
        {
            return;
        }

        int newer = replica.Points.Points.Count(each => each.Number > point.Number);
        string older = newer == 0 ? "" : $", and {newer} newer points";
        string typed = wish.Confirm is { } other ? $"{SafeWord(other)} is not its name" : "type its name";
        throw new ApiException(409, "replica-unconfirmed", "the failover would lose data", $"{replica.Name}: point {point.Number} is "
            + $"{AgeOf(point)} old, and was not cut after the VM was off: what the primary has written since{older} would be lost. To do "
            + $"it all the same, {typed}: --confirm {replica.Name}. To lose nothing, stop the VM at the primary, 'vmmctl replica "
            + $"sync-now {replica.Name}' there, and fail over to the newest point");
    }

    private static string SafeWord(string text) => Contracts.SafeText.Line(text, 64);

    private static string AgeOf(ArrangedPoint point)
    {
        TimeSpan age = TimeProvider.System.GetUtcNow() - point.Point.Time;
        return age < TimeSpan.FromMinutes(2) ? string.Create(CultureInfo.InvariantCulture, $"{Math.Max(0, age.TotalSeconds):0} s")
            : age < TimeSpan.FromHours(2) ? string.Create(CultureInfo.InvariantCulture, $"{age.TotalMinutes:0} min")
            : string.Create(CultureInfo.InvariantCulture, $"{age.TotalHours:0} h");
    }

    private static string At(ArrangedPoint point) => point.Point.Time.UtcDateTime.ToString("u", CultureInfo.InvariantCulture);

    private static ArrangedPoint Choose(Replica replica, int? number) => replica.Points.Newest is not { } newest
        ? throw new ApiException(409, "replica-empty", "there is no point", $"{replica.Name}: no point has arrived yet")
        : number is not { } wanted ? newest
        : replica.Points.Points.FirstOrDefault(point => point.Number == wanted) ?? throw NoPoint(replica, $"point {wanted}");

    private static ArrangedPoint Require(Replica replica, Guid id) =>
        replica.Points.Find(id) ?? throw NoPoint(replica, "the point, which was merged into the next one meanwhile,");

    private static ApiException NoPoint(Replica replica, string what) => new(404, "replica-no-point", "no such point",
        $"{replica.Name}: {what} is not there: 'vmmctl replica points {replica.Name}' shows those there are");

    private static void RequireName(string name)
    {
        if (!Spec.SpecValidation.IsName(name))
        {
            throw Invalid("as: expected the name of a VM: 1 to 64 letters, digits, . _ -, beginning with a letter or digit");
        }
    }

    private static ApiException Invalid(string why) => new(422, "replica-invalid", "that cannot be done with the replica", why);
}
