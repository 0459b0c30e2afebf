using System.Globalization;
using System.Net.WebSockets;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Kvm;
using Vmm.Machine.Spec;
using Vmm.Memory;

namespace Vmm.Daemon.Api;

/// <summary>The REST interface; docs/rest.md describes it.</summary>
internal static class Endpoints
{
    internal static void Map(IEndpointRouteBuilder routes, VmManager vms)
    {
        routes.MapGet("/healthz", context => context.Response.WriteAsync("ok\n", context.RequestAborted));
        RouteGroupBuilder api = routes.MapGroup("/api/v1");
        api.MapGet("/host", context => Json(context, Host(), RestJson.Default.HostInfo));
        api.MapGet("/schema/vm-spec.json", context => Text(context, SpecSchema.Json(), "application/schema+json"));
        api.MapGet("/vms", context => Json(context, vms.List(), RestJson.Default.VmList));
        api.MapPost("/vms", async context =>
        {
            (VmInfo vm, bool created) = await vms.CreateAsync(await BodyAsync(context).ConfigureAwait(false), Folder(context), context.RequestAborted).ConfigureAwait(false);
            context.Response.StatusCode = created ? 201 : 200;
            context.Response.Headers.Location = "/api/v1/vms/" + vm.Name;
            await Vm(context, vm).ConfigureAwait(false);
        });
        api.MapGet("/vms/{name}", context => Vm(context, vms.Get(Name(context)).Info));
        api.MapPut("/vms/{name}", async context =>
        {
            string yaml = await BodyAsync(context).ConfigureAwait(false);
            await Vm(context, await vms.ReplaceAsync(Name(context), yaml, Folder(context), Revision(context), context.RequestAborted).ConfigureAwait(false)).ConfigureAwait(false);
        });
        api.MapDelete("/vms/{name}", async context =>
        {
            await vms.RemoveAsync(Name(context), Revision(context), context.RequestAborted).ConfigureAwait(false);
            context.Response.StatusCode = 204;
        });
        api.MapGet("/vms/{name}/spec", context => Text(context, vms.Get(Name(context)).Record.Spec, "application/yaml"));
        api.MapGet("/vms/{name}/stats", async context =>
            await Json(context, await vms.Get(Name(context)).StatsAsync(context.RequestAborted).ConfigureAwait(false), RestJson.Default.WorkerStats).ConfigureAwait(false));
        api.MapGet("/vms/{name}/console", context => ConsoleAsync(context, vms.Get(Name(context))));

        // A command that began is carried out whole, also when the client does not wait for the answer.
        Command("start", (vm, cancellation) => vm.StartAsync(cancellation));
        Command("stop", (vm, cancellation) => vm.StopAsync(cancellation));
        Command("pause", (vm, cancellation) => vm.PauseAsync(cancellation));
        Command("resume", (vm, cancellation) => vm.ResumeAsync(cancellation));
        Command("power-button", (vm, cancellation) => vm.PressPowerButtonAsync(cancellation));

        void Command(string verb, Func<ManagedVm, CancellationToken, Task<VmInfo>> carryOut) => api.MapPost("/vms/{name}/" + verb, async context =>
        {
            using CancellationTokenSource deadline = new(TimeSpan.FromMinutes(1));
            await Vm(context, await carryOut(vms.Get(Name(context)), deadline.Token).ConfigureAwait(false)).ConfigureAwait(false);
        });
    }

    private static HostInfo Host()
    {
        string kvm;
        try
        {
            using KvmSystem system = KvmSystem.Open();
            kvm = KvmKindProbe.Detect(system) == KvmKind.Hardware ? "hardware" : "emulating";
        }
        catch (KvmUnavailableException)
        {
            kvm = "none";
        }

        return new HostInfo(DaemonOptions.Version, kvm, [.. HostTopology.Read().Nodes.Select(n => new HostNodeInfo(n.Id, NumberSet.Format(n.Cpus), n.TotalBytes, n.FreeBytes))]);
    }

    private static async Task ConsoleAsync(HttpContext context, ManagedVm vm)
    {
        if (!context.WebSockets.IsWebSocketRequest)
        {
            throw new ApiException(426, "websocket-only", "a console is a WebSocket", $"{context.Request.Path}: ask for an upgrade to WebSocket, as 'vmmctl vm console' does");
        }

        await using Stream console = await vm.OpenConsoleAsync(context.RequestAborted).ConfigureAwait(false);
        using WebSocket socket = await context.WebSockets.AcceptWebSocketAsync().ConfigureAwait(false);
        await ConsoleBridge.RunAsync(socket, console, context.RequestAborted).ConfigureAwait(false);
    }

    private static string Name(HttpContext context) => (string)context.Request.RouteValues["name"]!;

    private static string Folder(HttpContext context)
    {
        string folder = context.Request.Query["folder"].ToString();
        return folder.Length == 0 || Path.IsPathRooted(folder)
            ? folder
            : throw new ApiException(400, "bad-request", "the request cannot be read", $"folder={folder}: give the whole path");
    }

    private static long? Revision(HttpContext context)
    {
        string tag = context.Request.Headers.IfMatch.ToString().Trim();
        return tag.Length == 0 || string.Equals(tag, "*", StringComparison.Ordinal) ? null
            : long.TryParse(tag.Trim('"'), NumberStyles.None, CultureInfo.InvariantCulture, out long revision) ? revision
            : throw new ApiException(400, "bad-request", "the request cannot be read", $"If-Match: {tag} is not an ETag of this daemon");
    }

    private static async Task<string> BodyAsync(HttpContext context)
    {
        using StreamReader reader = new(context.Request.Body, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true), detectEncodingFromByteOrderMarks: false);
        try
        {
            return await reader.ReadToEndAsync(context.RequestAborted).ConfigureAwait(false);
        }
        catch (DecoderFallbackException)
        {
            throw new ApiException(400, "bad-request", "the request cannot be read", "the body is not UTF-8 text");
        }
    }

    private static Task Vm(HttpContext context, VmInfo vm)
    {
        context.Response.Headers.ETag = $"\"{vm.Revision.ToString(CultureInfo.InvariantCulture)}\"";
        return Json(context, vm, RestJson.Default.VmInfo);
    }

    private static Task Json<T>(HttpContext context, T value, System.Text.Json.Serialization.Metadata.JsonTypeInfo<T> type) =>
        context.Response.WriteAsJsonAsync(value, type, cancellationToken: context.RequestAborted);

    private static Task Text(HttpContext context, string text, string type)
    {
        context.Response.ContentType = type + "; charset=utf-8";
        return context.Response.WriteAsync(text, context.RequestAborted);
    }
}
