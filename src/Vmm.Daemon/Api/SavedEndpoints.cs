using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Saved;
using Vmm.Daemon.Vms;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Saved VMs over REST.</summary>
internal static class SavedEndpoints
{
    internal static void Map(RouteGroupBuilder api, VmManager vms, Jobs jobs)
    {
        api.MapPost("/vms/{name}/save", async context =>
        {
            SavedFolderRequest wish = await BodyAsync(context, RequestJson.Default.SavedFolderRequest).ConfigureAwait(false);
            ManagedVm vm = vms.Get(Name(context));
            JobInfo job = jobs.Start("vm-save", vm.Record.Name, Who(context), (progress, cancellation) =>
                vm.Saves.SaveAsync(Whole(wish.Folder), progress, cancellation));
            await JobEndpoints.Accepted(context, job).ConfigureAwait(false);
        }).For(Role.Operator);
        api.MapPost("/vms/{name}/discard-saved", async context =>
        {
            ManagedVm vm = vms.Get(Name(context));
            VmInfo now = await vm.AnswerAsync(vm.Saves.DiscardAsync(context.RequestAborted)).ConfigureAwait(false);
            await Vm(context, now).ConfigureAwait(false);
        }).For(Role.Operator);
        api.MapPost("/restore", async context =>
        {
            RestoreRequest wish = await BodyAsync(context, RequestJson.Default.RestoreRequest).ConfigureAwait(false);
            (ManagedVm vm, SavedVmFolder folder) = vms.GetSaved(Whole(wish.Folder));
            JobInfo job = jobs.Start("vm-restore", vm.Record.Name, Who(context), async (progress, cancellation) =>
            {
                using (folder)
                {
                    await vm.RestoreAsync(folder, wish.Lazy == true, progress, cancellation).ConfigureAwait(false);
                }
            });
            await JobEndpoints.Accepted(context, job).ConfigureAwait(false);
        }).For(Role.Operator);
    }

    private static string Whole(string folder) => Path.IsPathRooted(folder) && !folder.Any(char.IsControl)
        ? folder
        : throw new ApiException(
            422, "folder-refused", "the folder cannot be used", $"{folder}: expected a whole path",
            [new FieldProblem("folder", "expected a whole path", 0)]);
}
