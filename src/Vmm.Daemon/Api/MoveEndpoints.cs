using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Moves;
using Vmm.Daemon.Vms;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Moves of VMs over REST, as their user asks for them.</summary>
internal static class MoveEndpoints
{
    /// <summary>As many as there are processors to copy with, beside the guest's: half of them, up to four.</summary>
    private static readonly int s_channels = Math.Clamp(Environment.ProcessorCount / 2, 1, 4);

    private static readonly TimeSpan s_handOver = TimeSpan.FromMilliseconds(50),
        s_migrate = TimeSpan.FromMilliseconds(300), s_timeout = TimeSpan.FromMinutes(10);

    internal static void Map(RouteGroupBuilder api, VmManager vms, Jobs jobs)
    {
        MapUpgrade(api, vms, jobs);
        MapMigrate(api, vms, jobs);
        api.MapPost("/vms/{name}/settle", async context =>
        {
            SettleRequest request = await BodyAsync(context, RequestJson.Default.SettleRequest).ConfigureAwait(false);
            ManagedVm vm = vms.Get(Name(context));
            if (request.Where is not (SettleRequest.Here or SettleRequest.There))
            {
                throw new ApiException(422, "move-impossible", "a place that cannot be",
                    $"where: {request.Where} is neither here nor there",
                    [new FieldProblem("where", "expected here or there", 0)]);
            }

            if (!string.Equals(request.Confirm, vm.Record.Name, StringComparison.Ordinal))
            {
                throw new ApiException(422, "not-confirmed", "the VM's name has to be typed",
                    $"confirm: expected {vm.Record.Name}: should the other host run it all the same, both write the same disks");
            }

            vm.Migrations.Decide(request.Where is SettleRequest.Here);
            context.Response.StatusCode = 204;
        }).For(Role.Admin);
    }

    private static void MapUpgrade(RouteGroupBuilder api, VmManager vms, Jobs jobs) =>
        api.MapPost("/vms/{name}/upgrade", async context =>
        {
            UpgradeRequest request = await BodyAsync(context, RequestJson.Default.UpgradeRequest).ConfigureAwait(false);
            ManagedVm vm = vms.Get(Name(context));
            MoveWish wish = new(
                Time("maxDowntimeMilliseconds", request.MaxDowntimeMilliseconds, MoveLimits.MostDowntime, TimeSpan.FromMilliseconds)
                    ?? s_handOver,
                Time("timeoutSeconds", request.TimeoutSeconds, MoveLimits.MostTimeout, TimeSpan.FromSeconds) ?? s_timeout,
                request.Force == true,
                s_channels);
            JobInfo job = jobs.StartMove("vm-upgrade", vm.Record.Name, Who(context), (report, cancellation) =>
                vm.Upgrades.UpgradeAsync(wish, report, cancellation));
            await JobEndpoints.Accepted(context, job).ConfigureAwait(false);
        }).For(Role.Operator);

    private static void MapMigrate(RouteGroupBuilder api, VmManager vms, Jobs jobs) =>
        api.MapPost("/vms/{name}/migrate", async context =>
        {
            MigrateRequest request = await BodyAsync(context, RequestJson.Default.MigrateRequest).ConfigureAwait(false);
            ManagedVm vm = vms.Get(Name(context));
            MoveWish wish = new(
                Time("maxDowntimeMilliseconds", request.MaxDowntimeMilliseconds, MoveLimits.MostDowntime, TimeSpan.FromMilliseconds)
                    ?? s_migrate,
                Time("timeoutSeconds", request.TimeoutSeconds, MoveLimits.MostTimeout, TimeSpan.FromSeconds) ?? s_timeout,
                request.Force == true,
                s_channels);
            vms.Peers.Find(request.To).Dispose(); // an address that is none is an error now
            JobInfo job = jobs.StartMove("vm-migrate", vm.Record.Name, Who(context), (report, cancellation) =>
                vm.Migrations.MigrateAsync(request.To, wish, report, cancellation));
            await JobEndpoints.Accepted(context, job).ConfigureAwait(false);
        }).For(Role.Admin);

    private static TimeSpan? Time(string field, int? count, int most, Func<long, TimeSpan> unit) => count is null ? null
        : count >= 1 && count <= most ? unit(count.Value)
        : throw new ApiException(422, "move-impossible", "a number that cannot be", $"{field}: {count} is not 1 to {most}",
            [new FieldProblem(field, $"expected 1 to {most}", 0)]);
}
