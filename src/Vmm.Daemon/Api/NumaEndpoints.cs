using System.Globalization;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Who is on which NUMA node, and moving it.</summary>
internal static class NumaEndpoints
{
    private static readonly SemaphoreSlim s_fits = new(1, 1);

    internal static void Map(RouteGroupBuilder api, VmManager vms, Jobs jobs)
    {
        api.MapGet("/host/numa", async context =>
        {
            HostNuma host = await Task.Run(
                () => NumaView.Host(vms.List().Vms.Select(v => (v.Name, Find(vms, v.Name)?.Homes.PresentMemory()))),
                context.RequestAborted).ConfigureAwait(false);
            await Json(context, host, RestJson.Default.HostNuma).ConfigureAwait(false);
        }).For(Role.Viewer);
        api.MapPost("/host/fit", async context =>
        {
            string yaml = await BodyAsync(context).ConfigureAwait(false);
            await JsonAsync(context, FitAsync(yaml, context.RequestAborted), RestJson.Default.NumaFitInfo).ConfigureAwait(false);
        }).For(Role.Operator);
        api.MapGet("/vms/{name}/numa", context =>
            JsonAsync(context, vms.Get(Name(context)).Homes.ReadAsync(context.RequestAborted), RestJson.Default.VmNuma)).For(Role.Viewer);
        api.MapPost("/vms/{name}/vnodes/{vnode}/rehome", async context =>
        {
            ManagedVm vm = vms.Get(Name(context));
            RehomeRequest wish = await BodyAsync(context, RequestJson.Default.RehomeRequest).ConfigureAwait(false);
            await JobEndpoints.Accepted(context, jobs.Start("vm-rehome", vm.Record.Name, Who(context), await vm.Homes.PlanRehomeAsync(
                Vnode(context), wish, context.RequestAborted).ConfigureAwait(false))).ConfigureAwait(false);
        }).For(Role.Operator);
    }

    /// <summary>One that is deleted meanwhile has no memory anywhere.</summary>
    private static ManagedVm? Find(VmManager vms, string name)
    {
        try
        {
            return vms.Get(name);
        }
        catch (ApiException)
        {
            return null;
        }
    }

    /// <summary>One at a time: a search may take a core for some tenths of a second.</summary>
    private static async Task<NumaFitInfo> FitAsync(string yaml, CancellationToken cancellation)
    {
        await s_fits.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            return await Task.Run(() => NumaView.Fit(Spec(yaml, cancellation), cancellation), cancellation).ConfigureAwait(false);
        }
        finally
        {
            s_fits.Release();
        }
    }

    private static VmSpec Spec(string yaml, CancellationToken cancellation)
    {
        try
        {
            VmSpec spec = SpecReader.Read(yaml, "spec", null, cancellation);
            return spec.Numa is { Auto: true } ? NumaProjection.Apply(spec, HostTopology.Read()) : spec;
        }
        catch (SpecException e)
        {
            throw ApiException.OfSpec(e);
        }
        catch (HostMismatchException e)
        {
            throw new ApiException(422, "host-too-small", "the topology does not fit this host", e.Message);
        }
    }

    private static int Vnode(HttpContext context)
    {
        string text = (string)context.Request.RouteValues["vnode"]!;
        return int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int vnode) ? vnode
            : throw new ApiException(400, "bad-request", "the request cannot be read", $"vnode {text}: expected a number");
    }
}
