using System.Net.WebSockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Virtual machines over REST; docs/rest.md describes it.</summary>
internal static class VmEndpoints
{
    private const int LongestWait = 600;

    internal static void Map(RouteGroupBuilder api, VmManager vms, Jobs jobs)
    {
        MapSpecs(api, vms);
        MapReports(api, vms);
        MapMemory(api, vms);
        MapDeviceLimits(api, vms);
        MapCpu(api, vms);
        MapStart(api, vms, jobs);
        MapStop(api, vms, jobs);
        MapCommand(api, vms, "pause", (vm, cancellation) => vm.AnswerAsync(vm.Controls.PauseAsync(cancellation)));
        MapCommand(api, vms, "resume", (vm, cancellation) => vm.AnswerAsync(vm.Controls.ResumeAsync(cancellation)));
        MapCommand(api, vms, "power-button", (vm, cancellation) => vm.AnswerAsync(vm.Controls.PressPowerButtonAsync(cancellation)));
        MapCommand(api, vms, "wake", (vm, cancellation) => vm.AnswerAsync(vm.Controls.WakeAsync(cancellation)));
    }

    private static void MapSpecs(RouteGroupBuilder api, VmManager vms)
    {
        api.MapGet("/vms", context => Json(context, vms.List(), RestJson.Default.VmList)).For(Role.Viewer);
        api.MapPost("/vms", async context =>
        {
            (VmInfo vm, bool created) = await vms.CreateAsync(
                await BodyAsync(context).ConfigureAwait(false), Folder(context), context.RequestAborted).ConfigureAwait(false);
            context.Response.StatusCode = created ? 201 : 200;
            context.Response.Headers.Location = "/api/v1/vms/" + vm.Name;
            await Vm(context, vm).ConfigureAwait(false);
        }).QueryText("folder", "What relative paths in the body are relative to").For(Role.Admin);
        api.MapGet("/vms/{name}", context => Vm(context, vms.Get(Name(context)).Info)).For(Role.Viewer);
        api.MapPut("/vms/{name}", async context =>
        {
            string yaml = await BodyAsync(context).ConfigureAwait(false);
            await Vm(context, await vms.ReplaceAsync(Name(context), yaml, Folder(context), Revision(context),
                context.RequestAborted).ConfigureAwait(false)).ConfigureAwait(false);
        }).QueryText("folder", "What relative paths in the body are relative to").Conditional().For(Role.Admin);
        api.MapDelete("/vms/{name}", async context =>
        {
            await vms.RemoveAsync(Name(context), Revision(context), context.RequestAborted).ConfigureAwait(false);
            context.Response.StatusCode = 204;
        }).Conditional().For(Role.Admin);
        api.MapGet("/vms/{name}/spec", context => Text(context, vms.Get(Name(context)).Record.Spec, "application/yaml")).For(Role.Viewer);
    }

    private static void MapReports(RouteGroupBuilder api, VmManager vms)
    {
        api.MapGet("/vms/{name}/stats", context =>
            JsonAsync(context, vms.Get(Name(context)).Controls.StatsAsync(context.RequestAborted), RestJson.Default.WorkerStats))
            .For(Role.Viewer);
        api.MapGet("/vms/{name}/units", context =>
            JsonAsync(context, vms.Get(Name(context)).Controls.UnitsAsync(context.RequestAborted), RestJson.Default.UnitList))
            .For(Role.Viewer);
        api.MapGet("/vms/{name}/agent", context =>
            JsonAsync(context, vms.Get(Name(context)).Agent.AskAsync(context.RequestAborted), RestJson.Default.GuestAgentInfo))
            .For(Role.Viewer);
        api.MapGet("/vms/{name}/guest", context =>
            JsonAsync(context, vms.Get(Name(context)).StandardAgent.FactsAsync(context.RequestAborted), RestJson.Default.GuestFacts))
            .For(Role.Viewer);
        api.MapPost("/vms/{name}/exec", async context =>
        {
            GuestExecWish wish = await BodyAsync(context, RequestJson.Default.GuestExecWish).ConfigureAwait(false);
            await JsonAsync(context, vms.Get(Name(context)).Exec.RunAsync(wish, context.RequestAborted),
                RestJson.Default.GuestExecResult).ConfigureAwait(false);
        }).For(Role.Operator);
        api.MapGet("/vms/{name}/console", context => ConsoleAsync(context, vms.Get(Name(context)))).Audited().For(Role.Operator);
        api.MapGet("/vms/{name}/events",
            context => Json(context, new EventList(vms.Events.Of(vms.Get(Name(context)).Record.Name)), RestJson.Default.EventList))
            .For(Role.Viewer);
    }

    private static void MapMemory(RouteGroupBuilder api, VmManager vms)
    {
        api.MapGet("/vms/{name}/memory", context =>
            JsonAsync(context, vms.Get(Name(context)).Memory.ReadAsync(context.RequestAborted), RestJson.Default.VmMemory))
            .For(Role.Viewer);
        api.MapPut("/vms/{name}/memory", async context =>
        {
            TimeSpan patience = Seconds(context, "timeout", 30);
            MemoryWish wish = await BodyAsync(context, RequestJson.Default.MemoryWish).ConfigureAwait(false);
            CheckWish(wish);
            ManagedVm vm = vms.Get(Name(context));
            if (wish.Resident is { } resident)
            {
                await vm.ResidentLimit.ChangeAsync(resident, context.RequestAborted).ConfigureAwait(false);
            }

            await JsonAsync(context, wish is { Bytes: null, BalloonBytes: null, Auto: not true }
                ? vm.Memory.ReadAsync(context.RequestAborted)
                : vm.Memory.ChangeAsync(wish with { Resident = null }, patience, context.RequestAborted),
                RestJson.Default.VmMemory).ConfigureAwait(false);
        }).QuerySeconds("timeout", LongestWait, "Seconds to wait for the guest; 30 by default").For(Role.Operator);
    }

    private static void MapDeviceLimits(RouteGroupBuilder api, VmManager vms) =>
        api.MapPut("/vms/{name}/devices/{device}/limits", async context =>
        {
            DeviceLimits limits = await BodyAsync(context, RequestJson.Default.DeviceLimits).ConfigureAwait(false);
            await vms.Get(Name(context)).Controls.LimitDeviceAsync(
                new LimitsBody((string)context.Request.RouteValues["device"]!, limits), context.RequestAborted).ConfigureAwait(false);
            context.Response.StatusCode = 204;
        }).For(Role.Operator);

    private static void MapCpu(RouteGroupBuilder api, VmManager vms)
    {
        api.MapGet("/vms/{name}/cpu", context => Cpu(context, vms.Get(Name(context)), vms.Get(Name(context)).CpuTime.Current))
            .For(Role.Viewer);
        api.MapPut("/vms/{name}/cpu", async context =>
        {
            CpuLimits limits = await BodyAsync(context, RequestJson.Default.CpuLimits).ConfigureAwait(false);
            ManagedVm vm = vms.Get(Name(context));
            await Cpu(context, vm, await vm.CpuTime.LimitAsync(
                limits, Revision(context), context.RequestAborted).ConfigureAwait(false)).ConfigureAwait(false);
        }).Conditional().For(Role.Operator);
    }

    // A command that began is carried out whole, also when the client does not wait for the answer: here and in those below.
    private static void MapStart(RouteGroupBuilder api, VmManager vms, Jobs jobs) =>
        api.MapPost("/vms/{name}/start", async context =>
        {
            ManagedVm vm = vms.Get(Name(context));
            if (JobEndpoints.PrefersJob(context))
            {
                await StartAsync(context, vm, jobs).ConfigureAwait(false);
                return;
            }

            // Its own deadline follows the memory that is taken at the start.
            await Vm(context, await vm.StartAsync(null, CancellationToken.None).ConfigureAwait(false)).ConfigureAwait(false);
        }).For(Role.Operator);

    private static void MapStop(RouteGroupBuilder api, VmManager vms, Jobs jobs) =>
        api.MapPost("/vms/{name}/stop", async context =>
        {
            // graceful=SECONDS: the power button first.
            TimeSpan? patience = RouteRoles.Parameter(context, "graceful") is not null ? Seconds(context, "graceful", 60) : null;
            ManagedVm vm = vms.Get(Name(context));
            if (JobEndpoints.PrefersJob(context))
            {
                await JobEndpoints.Accepted(context, jobs.Start("vm-stop", vm.Record.Name, Who(context),
                    (progress, cancellation) => StopAsync(vm, patience, progress, cancellation))).ConfigureAwait(false);
                return;
            }

            using CancellationTokenSource deadline = new((patience ?? TimeSpan.Zero) + TimeSpan.FromMinutes(1));
            await Vm(context, await vm.StopAsync(patience, deadline.Token).ConfigureAwait(false)).ConfigureAwait(false);
        }).QuerySeconds("graceful", LongestWait, "Press the power button first, and give the guest so many seconds").For(Role.Operator);

    private static void MapCommand(
        RouteGroupBuilder api, VmManager vms, string verb, Func<ManagedVm, CancellationToken, Task<VmInfo>> carryOut) =>
        api.MapPost("/vms/{name}/" + verb, async context =>
        {
            using CancellationTokenSource deadline = new(TimeSpan.FromMinutes(1));
            await Vm(context, await carryOut(vms.Get(Name(context)), deadline.Token).ConfigureAwait(false)).ConfigureAwait(false);
        }).For(Role.Operator);

    /// <summary>What would have no effect is a slip.</summary>
    private static void CheckWish(MemoryWish wish)
    {
        string? alone = wish is { Force: not null, Bytes: null } ? "force"
            : wish is { Vnode: not null, Bytes: null, Auto: not true } ? "vnode"
            : null;
        (string Field, string Problem)? refused = wish.ResidentBytes is not null ? ("residentBytes", "say resident, as the spec has it")
            : wish.Reason is not null ? ("reason", "is for vmmd's own changes: leave it out")
            : null;
        if (refused is { } wrong)
        {
            throw new ApiException(400, "bad-request", "the request cannot be read", $"{wrong.Field}: {wrong.Problem}",
                [new FieldProblem(wrong.Field, wrong.Problem, 0)]);
        }

        if (alone is not null)
        {
            throw new ApiException(400, "bad-request", "the request cannot be read", $"{alone}: has no effect without bytes",
                [new FieldProblem(alone, "has no effect without bytes", 0)]);
        }
    }

    private static Task Cpu(HttpContext context, ManagedVm vm, VmCpu cpu)
    {
        Tag(context, vm.Record.Revision);
        return Json(context, cpu, RestJson.Default.VmCpu);
    }

    /// <summary>
    /// A start that becomes a job when it takes longer than the client wants to wait: how far it is says how much of its memory is there.
    /// </summary>
    private static async Task StartAsync(HttpContext context, ManagedVm vm, Jobs jobs)
    {
        CancellationTokenSource giveUp = new();
        double reached = 0;
        Task<VmInfo> start = vm.StartAsync(now => Volatile.Write(ref reached, now), giveUp.Token);
        if (await Task.WhenAny(start, Task.Delay(JobEndpoints.PreferredWait(context), CancellationToken.None)).ConfigureAwait(false)
            == start)
        {
            giveUp.Dispose();
            await Vm(context, await start.ConfigureAwait(false)).ConfigureAwait(false);
            return;
        }

        JobInfo job = jobs.Start("vm-start", vm.Record.Name, Who(context), async (progress, cancellation) =>
        {
            using (giveUp)
            {
                await using CancellationTokenRegistration registration = cancellation.Register(giveUp.Cancel);
                while (await Task.WhenAny(start, Task.Delay(TimeSpan.FromMilliseconds(250), CancellationToken.None)).ConfigureAwait(false)
                    != start)
                {
                    progress(Math.Min(0.99, Volatile.Read(ref reached)));
                }

                _ = await start.ConfigureAwait(false);
            }
        });
        await JobEndpoints.Accepted(context, job).ConfigureAwait(false);
    }

    /// <summary>A stop as a job: how far it is says how much of the guest's time is over.</summary>
    private static async Task StopAsync(ManagedVm vm, TimeSpan? patience, Action<double> progress, CancellationToken cancellation)
    {
        long begin = Environment.TickCount64;
        double whole = (patience ?? TimeSpan.FromSeconds(1)).TotalMilliseconds + 1;
        Task<VmInfo> stop = vm.StopAsync(patience, cancellation);
        while (await Task.WhenAny(stop, Task.Delay(TimeSpan.FromMilliseconds(250), CancellationToken.None)).ConfigureAwait(false) != stop)
        {
            progress(Math.Min(0.99, (Environment.TickCount64 - begin) / whole));
        }

        _ = await stop.ConfigureAwait(false);
    }

    private static async Task ConsoleAsync(HttpContext context, ManagedVm vm)
    {
        if (!context.WebSockets.IsWebSocketRequest)
        {
            throw new ApiException(426, "websocket-only", "a console is a WebSocket",
                $"{context.Request.Path}: ask for an upgrade to WebSocket, as 'vmmctl vm console' does");
        }

        await using Stream console = await vm.Console.OpenAsync(context.RequestAborted).ConfigureAwait(false);
        using WebSocket socket = await context.WebSockets.AcceptWebSocketAsync().ConfigureAwait(false);
        AuditEntry.Of(context).Opened();
        using Welcome welcome = WhileWelcome(context);
        await ConsoleBridge.RunAsync(socket, console, vm.Console.ResizeAsync, welcome, context.RequestAborted).ConfigureAwait(false);
    }
}
