using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;
using Vmm.Spec;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Disks and network devices of a VM over REST; docs/rest.md describes it.</summary>
internal static class DeviceEndpoints
{
    private const int LongestWait = 600;

    internal static void Map(RouteGroupBuilder api, VmManager vms, Jobs jobs)
    {
        api.MapGet("/vms/{name}/devices", context =>
            JsonAsync(context, vms.Get(Name(context)).Devices.ListAsync(context.RequestAborted), RestJson.Default.DeviceList))
            .For(Role.Viewer);

        // A device names a file or a tap of the host, as a spec does: who may write those may add these.
        api.MapPost("/vms/{name}/disks", async context =>
        {
            DiskSpec disk = await ReadAsync(context, (text, folder) => SpecReader.ReadDisk(text, "disk", folder)).ConfigureAwait(false);
            await Added(context, await vms.AttachAsync(
                Name(context), disk, Stay(context), Revision(context), context.RequestAborted).ConfigureAwait(false)).ConfigureAwait(false);
        })
            .QueryText("folder", "What relative paths in the body are relative to")
            .QueryFlag("persistent", "Change the stored spec, too; true by default")
            .Conditional()
            .For(Role.Admin);
        api.MapPost("/vms/{name}/nets", async context =>
        {
            NetSpec net = await ReadAsync(context, (text, _) => SpecReader.ReadNet(text, "net")).ConfigureAwait(false);
            ManagedVm vm = vms.Get(Name(context));
            await Added(context, await vms.Nets.AttachAsync(
                vm, net, Stay(context), Revision(context), context.RequestAborted).ConfigureAwait(false)).ConfigureAwait(false);
        })
            .QueryText("folder", "What relative paths in the body are relative to")
            .QueryFlag("persistent", "Change the stored spec, too; true by default")
            .Conditional()
            .For(Role.Admin);
        MapDiskWork(api, vms, jobs);
        MapJobs(api, vms, jobs);
        api.MapDelete("/vms/{name}/devices/{device}", async context =>
        {
            TimeSpan patience = Seconds(context, "timeout", 30);
            RemovalBody removal = await vms.Get(Name(context))
                .Devices.DetachAsync(
                    (string)context.Request.RouteValues["device"]!,
                    patience,
                    Flag(context, "force", otherwise: false),
                    Stay(context),
                    context.RequestAborted).ConfigureAwait(false);
            await Json(context, removal, RestJson.Default.RemovalBody).ConfigureAwait(false);
        }).QuerySeconds("timeout", LongestWait, "Seconds that the guest has to let go of it; 30 by default")
        .QueryFlag("force", "Take it when that time is over; false by default")
        .QueryFlag("persistent", "Change the stored spec, too; true by default")
        .For(Role.Admin);
    }

    // Disks whether the VM runs or not.
    private static void MapDiskWork(RouteGroupBuilder api, VmManager vms, Jobs jobs)
    {
        // It takes space of the host, as a new disk does.
        api.MapPut("/vms/{name}/devices/{device}/size", async context =>
        {
            DiskSizeWish wish = await BodyAsync(context, RequestJson.Default.DiskSizeWish).ConfigureAwait(false);
            DiskSize size = await vms.Get(Name(context)).DiskSizes.ResizeAsync(
                (string)context.Request.RouteValues["device"]!, wish.SizeBytes, context.RequestAborted).ConfigureAwait(false);
            await Json(context, size, RestJson.Default.DiskSize).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapPost("/vms/{name}/snapshot", async context =>
        {
            SnapshotWish wish = await BodyAsync(context, RequestJson.Default.SnapshotWish).ConfigureAwait(false);
            ManagedVm vm = vms.Get(Name(context));
            JobInfo job = jobs.Start("disk-snapshot", vm.Record.Name, Who(context), async (_, cancellation) =>
            {
                await vm.Snapshots.TakeAsync(wish, cancellation).ConfigureAwait(false);
            });
            await JobEndpoints.Accepted(context, job).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapPost("/vms/{name}/backup", async context =>
        {
            BackupRequest wish = await BodyAsync(context, RequestJson.Default.BackupRequest).ConfigureAwait(false);
            ManagedVm vm = vms.Get(Name(context));
            JobInfo job = jobs.Start("backup", vm.Record.Name, Who(context), (progress, cancellation) =>
                vm.Backups.BackupAsync(wish, progress, cancellation));
            await JobEndpoints.Accepted(context, job).ConfigureAwait(false);
        }).For(Role.Admin);
    }

    // What goes on with a disk of a running VM.
    private static void MapJobs(RouteGroupBuilder api, VmManager vms, Jobs jobs)
    {
        api.MapPost("/vms/{name}/devices/{device}/copy", async context =>
        {
            DiskCopyWish wish = await BodyAsync(context, RequestJson.Default.DiskCopyWish).ConfigureAwait(false);
            (ManagedVm vm, string device) = (vms.Get(Name(context)), (string)context.Request.RouteValues["device"]!);
            JobInfo job = jobs.Start("disk-copy", $"{vm.Record.Name}/{device}", Who(context), (progress, cancellation) =>
                vm.DiskCopies.CopyAsync(device, wish, progress, cancellation));
            await JobEndpoints.Accepted(context, job).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapPost("/vms/{name}/devices/{device}/stream", async context =>
        {
            DiskStreamWish wish = await BodyAsync(context, RequestJson.Default.DiskStreamWish).ConfigureAwait(false);
            (ManagedVm vm, string device) = (vms.Get(Name(context)), (string)context.Request.RouteValues["device"]!);
            JobInfo job = jobs.Start("disk-stream", $"{vm.Record.Name}/{device}", Who(context), (progress, cancellation) =>
                vm.DiskStreams.StreamAsync(device, wish, progress, cancellation));
            await JobEndpoints.Accepted(context, job).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapPost("/vms/{name}/devices/{device}/commit", async context =>
        {
            DiskCommitWish wish = await BodyAsync(context, RequestJson.Default.DiskCommitWish).ConfigureAwait(false);
            (ManagedVm vm, string device) = (vms.Get(Name(context)), (string)context.Request.RouteValues["device"]!);
            JobInfo job = jobs.Start("disk-commit", $"{vm.Record.Name}/{device}", Who(context), (progress, cancellation) =>
                vm.DiskCommits.CommitAsync(device, wish, progress, cancellation));
            await JobEndpoints.Accepted(context, job).ConfigureAwait(false);
        }).For(Role.Admin);
    }

    private static Task Added(HttpContext context, DeviceInfo device)
    {
        context.Response.StatusCode = 201;
        return Json(context, device, RestJson.Default.DeviceInfo);
    }

    private static async Task<T> ReadAsync<T>(HttpContext context, Func<string, string?, T> read)
    {
        string text = await BodyAsync(context).ConfigureAwait(false), folder = Folder(context);
        try
        {
            return read(text, folder.Length > 0 ? folder : null);
        }
        catch (SpecException e)
        {
            throw ApiException.OfSpec(e);
        }
    }

    /// <summary>The change is one of the stored spec, too.</summary>
    private static bool Stay(HttpContext context) => Flag(context, "persistent", otherwise: true);
}
