using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Vms;

/// <summary>What the verbs of <c>vmmctl vm</c> do.</summary>
internal static class VmVerbs
{
    private static readonly TimeSpan s_quickStart = TimeSpan.FromSeconds(5);

    internal static async Task<int> ListAsync(DaemonSession session, CancellationToken cancellation)
    {
        VmList list = await session.Client.ListAsync(cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(list, RestJson.Default.VmList);
        }

        Table table = new("NAME", "STATE", "CPUS", "MEMORY", "PID", "ADDRESS", "LAST EXIT");
        foreach (VmInfo vm in list.Vms)
        {
            table.Add(
                vm.Name,
                vm.WaitsFor is null ? vm.State.Word() : $"{vm.State.Word()}: {vm.WaitsFor}",
                Number(vm.Cpus),
                Size(vm.MemoryBytes),
                vm.WorkerProcessId is { } pid ? Number(pid) : "-",
                Addresses(vm),
                Exit(vm.LastExit));
        }

        return session.Table(table);
    }

    internal static async Task<int> ShowAsync(DaemonSession session, string name, CancellationToken cancellation)
    {
        VmInfo vm = await session.Client.ShowAsync(name, cancellation).ConfigureAwait(false);
        return session.IsJson ? session.Json(vm, RestJson.Default.VmInfo) : session.Properties(
            ("name", vm.Name), ("state", vm.State.Word()), ("id", vm.Id), ("revision", Number(vm.Revision)), ("cpus", Number(vm.Cpus)),
            ("memory", Size(vm.MemoryBytes)),
            ("cpu limits", Limits(vm.CpuLimits)), ("worker", vm.WorkerProcessId is { } pid ? Number(pid) : "-"),
            ("confined", Confined(vm.Confinement)), ("last exit", Exit(vm.LastExit)), ("saved in", vm.SavedIn ?? "-"),
            ("addresses", Addresses(vm)), ("waits for", vm.WaitsFor ?? "-"),
            ("restored", vm.Restoring == true ? $"lazily, goes on (vmmctl vm stats {vm.Name})" : "-"),
            ("restarts", vm.NextStart is { } next ? $"{vm.Restarts}, again at {Time(next)}" : Number(vm.Restarts)));
    }

    internal static async Task<int> AgentAsync(DaemonSession session, string name, CancellationToken cancellation)
    {
        GuestAgentInfo agent = await session.Client.AgentAsync(name, cancellation).ConfigureAwait(false);
        return session.IsJson ? session.Json(agent, RestJson.Default.GuestAgentInfo)
            : agent.Answers ? session.Properties(
                ("agent", agent.Version ?? "-"), ("memory", agent.Memory ? "yes" : "no"),
                ("freeze", agent.Freeze ? "yes" : "no: " + (agent.Why ?? "it does not say why")))
            : session.Properties(("agent", "none: " + agent.Why));
    }

    internal static async Task<int> InspectAsync(DaemonSession session, string name, CancellationToken cancellation)
    {
        UnitList list = await session.Client.UnitsAsync(name, cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(list, RestJson.Default.UnitList);
        }

        if (list.Operation is { } operation)
        {
            await session.Out.WriteLineAsync($"{name}: {operation} goes on").ConfigureAwait(false);
        }

        Table table = new("UNIT", "PHASE", "FOR", "WHAT");
        foreach (UnitInfo unit in list.Units)
        {
            table.Add(unit.Name, unit.Phase, unit.Milliseconds is { } time ? $"{Number(time)} ms" : "-", unit.Text);
        }

        return session.Table(table);
    }

    internal static async Task<int> CreateAsync(
        DaemonSession session, string yaml, string folder, VmSeedWish? seed, bool start, CancellationToken cancellation)
    {
        VmInfo vm = await session.Client.CreateAsync(yaml, folder, cancellation).ConfigureAwait(false);
        if (seed is not null)
        {
            _ = await session.Client.PutSeedAsync(vm.Name, seed, cancellation).ConfigureAwait(false);
        }

        return start
            ? await StartAsync(session, vm.Name, cancellation).ConfigureAwait(false)
            : Done(session, vm, vm.State == VmState.Defined ? "is defined" : "is there already with this spec, and is " + vm.State.Word());
    }

    internal static async Task<int> DeleteAsync(DaemonSession session, string name, bool force, CancellationToken cancellation)
    {
        if (force
            && (await session.Client.ShowAsync(name, cancellation).ConfigureAwait(false)) is { State: VmState.Running or VmState.Paused }
                or { State: VmState.Crashed, WorkerProcessId: not null })
        {
            await session.Client.DoAsync(name, "stop", cancellation).ConfigureAwait(false);
        }

        await session.Client.DeleteAsync(name, cancellation).ConfigureAwait(false);
        if (!session.IsJson)
        {
            await session.Out.WriteLineAsync(
                $"{name} is forgotten, with the disks that were made for it from images; others are untouched").ConfigureAwait(false);
        }

        return ExitCodes.Done;
    }

    internal static async Task<int> SpecAsync(DaemonSession session, string name, CancellationToken cancellation)
    {
        await session.Out.WriteAsync(await session.Client.SpecAsync(name, cancellation).ConfigureAwait(false)).ConfigureAwait(false);
        return ExitCodes.Done;
    }

    internal static async Task<int> DoAsync(DaemonSession session, string name, string verb, CancellationToken cancellation)
    {
        VmInfo vm = await session.Client.DoAsync(name, verb, cancellation).ConfigureAwait(false);
        return Done(session, vm, verb switch
        {
            "power-button" => "was asked to power off",
            "wake" => "was woken",
            _ => "is " + vm.State.Word(),
        });
    }

    /// <summary>Starts it and comes back when it runs; what takes long shows how far it is.</summary>
    internal static async Task<int> StartAsync(DaemonSession session, string name, CancellationToken cancellation)
    {
        (VmInfo? vm, JobInfo? job) = await session.Client.StartAsync(name, s_quickStart, cancellation).ConfigureAwait(false);
        if (job is not null
            && await JobFollower.LastAsync(session, job.Id, cancellation).ConfigureAwait(false) is { State: not JobState.Done } ended)
        {
            session.Fail($"{name}: {ended.Error?.Detail ?? "its start was " + JobCommands.Word(ended.State)}");
            return ExitCodes.Failed;
        }

        vm ??= await session.Client.ShowAsync(name, cancellation).ConfigureAwait(false);
        return Done(session, vm, "is " + vm.State.Word());
    }

    /// <summary>Asks the guest to power off, gives it some seconds, then pulls the plug.</summary>
    internal static async Task<int> StopAsync(DaemonSession session, string name, int seconds, CancellationToken cancellation)
    {
        VmInfo vm = await session.Client.StopAsync(name, Patience(seconds), cancellation).ConfigureAwait(false);
        return Done(session, vm, "is " + vm.State.Word());
    }

    /// <summary>Stops every VM that runs or is about to, all at the same time. What fails for one does not keep the others.</summary>
    /// <param name="session">Where to ask.</param>
    /// <param name="seconds">How long each guest has to power off; null pulls the plugs at once.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal static async Task<int> StopAllAsync(DaemonSession session, int? seconds, CancellationToken cancellation)
    {
        TimeSpan? patience = seconds is { } given ? Patience(given) : null;
        List<VmInfo> stopped = [];
        bool failed = false;
        List<Task<(string Name, VmInfo? Vm, string? Problem)>> open = [
            .. (await session.Client.ListAsync(cancellation).ConfigureAwait(false)).Vms
                .Where(vm => vm.State.IsAlive(vm.WorkerProcessId is not null) || vm.NextStart is not null)
                .Select(vm => StopOneAsync(session, vm, patience, cancellation))];
        if (open.Count == 0 && !session.IsJson)
        {
            await session.Out.WriteLineAsync("no VM runs").ConfigureAwait(false);
        }

        while (open.Count > 0)
        {
            Task<(string Name, VmInfo? Vm, string? Problem)> next = await Task.WhenAny(open).ConfigureAwait(false);
            open.Remove(next);
            (string name, VmInfo? vm, string? problem) = await next.ConfigureAwait(false);
            if (vm is null)
            {
                session.Fail($"{name}: {problem}");
                failed = true;
            }
            else if (session.IsJson)
            {
                stopped.Add(vm);
            }
            else
            {
                await session.Out.WriteLineAsync(
                    $"{vm.Name} is {vm.State.Word()}{(open.Count > 0 ? $"; {open.Count} to go" : "")}").ConfigureAwait(false);
            }
        }

        if (session.IsJson)
        {
            session.Json(new VmList(stopped), RestJson.Default.VmList);
        }

        return failed ? ExitCodes.Failed : ExitCodes.Done;
    }

    private static async Task<(string Name, VmInfo? Vm, string? Problem)> StopOneAsync(
        DaemonSession session, VmInfo vm, TimeSpan? patience, CancellationToken cancellation)
    {
        try
        {
            if (patience is not { } wait)
            {
                return (vm.Name, await session.Client.DoAsync(vm.Name, "stop", cancellation).ConfigureAwait(false), null);
            }

            if (vm.State == VmState.Paused)
            {
                // it cannot power off while it stands still
                await session.Client.DoAsync(vm.Name, "resume", cancellation).ConfigureAwait(false);
            }

            return (vm.Name, await session.Client.StopAsync(vm.Name, wait, cancellation).ConfigureAwait(false), null);
        }
        catch (VmmApiException e)
        {
            return (vm.Name, null, e.Message);
        }
    }

    private static TimeSpan Patience(int seconds) =>
        seconds is >= 0 and <= 600
            ? TimeSpan.FromSeconds(seconds)
            : throw new UsageException($"--timeout {seconds}: expected 0 to 600 seconds");

    /// <summary>Presses the button and, when asked to, waits for the guest to have powered off.</summary>
    internal static async Task<int> PressAsync(DaemonSession session, string name, TimeSpan? wait, CancellationToken cancellation)
    {
        if (wait is not { } limit)
        {
            return await DoAsync(session, name, "power-button", cancellation).ConfigureAwait(false);
        }

        await session.Client.DoAsync(name, "power-button", cancellation).ConfigureAwait(false);
        if (await WaitOption.ForVmAsync(
            session.Client,
            name,
            vm => vm.State is VmState.Stopped or VmState.Failed or VmState.Crashed or VmState.Defined,
            limit,
            cancellation).ConfigureAwait(false)
            is not { } ended)
        {
            session.Fail($"{name}: still runs after {limit.TotalSeconds} s: its guest does not heed the power button; 'vmmctl vm stop "
                + $"{name}' pulls the plug");
            return ExitCodes.Failed;
        }

        return Done(session, ended, "is " + ended.State.Word());
    }

    internal static int Done(DaemonSession session, VmInfo vm, string what) =>
        session.Done(vm, RestJson.Default.VmInfo, $"{vm.Name} {what}");

    /// <summary><c>quota 150%, weight 200</c>.</summary>
    internal static string Limits(CpuLimits? limits) => limits is null ? "-"
        : (limits.QuotaPercent is { } quota ? $"quota {quota}%" : "no quota") + (limits.Weight is { } weight ? $", weight {weight}" : "");

    /// <summary>What keeps its worker in bounds does, or what does not.</summary>
    private static string Confined(ConfinementBody? confinement) => confinement switch
    {
        null => "-",
        { Missing.Count: 0 } => "yes",
        _ => "not wholly: " + string.Join("; ", confinement.Missing),
    };

    private static string Addresses(VmInfo vm) => vm.Addresses is null ? "-" : string.Join(", ", vm.Addresses);

    private static string Exit(WorkerExit? exit) =>
        exit is null ? "-" : exit.Message is { } message ? $"{exit.Reason}: {message}" : exit.Reason.ToString();
}
