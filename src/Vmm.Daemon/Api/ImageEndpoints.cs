using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Images;
using Vmm.Daemon.Vms;
using static Vmm.Daemon.Api.Exchange;

namespace Vmm.Daemon.Api;

/// <summary>Images over REST.</summary>
internal static class ImageEndpoints
{
    internal static void Map(RouteGroupBuilder api, ImageStore images, Jobs jobs)
    {
        api.MapGet("/images", context => Json(context, images.List(), RestJson.Default.ImageList)).For(Role.Viewer);
        api.MapGet("/images/{name}", context => Json(context, images.Get(Name(context)), RestJson.Default.ImageInfo)).For(Role.Viewer);
        api.MapPost("/images", async context =>
        {
            ImageRequest wish = await BodyAsync(context, RequestJson.Default.ImageRequest).ConfigureAwait(false);
            await JobEndpoints.Accepted(
                context, jobs.Start("image-import", wish.Name, Who(context), images.Import(wish))).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapPost("/images/{name}/export", async context =>
        {
            ImageExportRequest wish = await BodyAsync(context, RequestJson.Default.ImageExportRequest).ConfigureAwait(false);
            string name = Name(context);
            await JobEndpoints.Accepted(
                context, jobs.Start("image-export", name, Who(context), images.Export(name, wish))).ConfigureAwait(false);
        }).For(Role.Admin);
        api.MapDelete("/images/{name}", context =>
        {
            images.Remove(Name(context));
            context.Response.StatusCode = 204;
            return Task.CompletedTask;
        }).For(Role.Admin);
    }
}
