using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Http;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Api;

/// <summary>Reading a request and writing its answer: what all endpoints have in common.</summary>
internal static class Exchange
{
    internal static string Name(HttpContext context) => (string)context.Request.RouteValues["name"]!;

    /// <summary>Who sent the request; nobody where no route asks.</summary>
    internal static Principal Who(HttpContext context) =>
        context.Items[typeof(Principal)] as Principal ?? new Principal("unknown", Role.Viewer);

    /// <summary>For an answer that has no end: how long it may go on.</summary>
    internal static Welcome WhileWelcome(HttpContext context) => new(Who(context), context.RequestAborted);

    internal static string Folder(HttpContext context)
    {
        string folder = RouteRoles.Parameter(context, "folder") ?? "";
        return folder.Length == 0 || Path.IsPathRooted(folder)
            ? folder
            : throw new ApiException(400, "bad-request", "the request cannot be read", $"folder={folder}: give the whole path");
    }

    internal static long? Revision(HttpContext context)
    {
        string tag = RouteRoles.IfMatch(context);
        return tag.Length == 0 || string.Equals(tag, "*", StringComparison.Ordinal) ? null
            : long.TryParse(tag.Trim('"'), NumberStyles.None, CultureInfo.InvariantCulture, out long revision) ? revision
            : throw new ApiException(400, "bad-request", "the request cannot be read", $"If-Match: {tag} is not an ETag of this daemon");
    }

    internal static async Task<string> BodyAsync(HttpContext context)
    {
        using StreamReader reader = new(
            context.Request.Body,
            new UTF8Encoding(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true),
            detectEncodingFromByteOrderMarks: false);
        try
        {
            return await reader.ReadToEndAsync(context.RequestAborted).ConfigureAwait(false);
        }
        catch (DecoderFallbackException)
        {
            throw new ApiException(400, "bad-request", "the request cannot be read", "the body is not UTF-8 text");
        }
    }

    internal static Task Vm(HttpContext context, VmInfo vm)
    {
        Tag(context, vm.Revision);
        return Json(context, vm, RestJson.Default.VmInfo);
    }

    /// <summary>The ETag that If-Match is compared with.</summary>
    internal static void Tag(HttpContext context, long revision) =>
        context.Response.Headers.ETag = $"\"{revision.ToString(CultureInfo.InvariantCulture)}\"";

    internal static Task Json<T>(HttpContext context, T value, JsonTypeInfo<T> type) =>
        context.Response.WriteAsJsonAsync(value, type, cancellationToken: context.RequestAborted);

    /// <summary>Answers with what <paramref name="value"/> brings.</summary>
    internal static async Task JsonAsync<T>(HttpContext context, Task<T> value, JsonTypeInfo<T> type) =>
        await Json(context, await value.ConfigureAwait(false), type).ConfigureAwait(false);

    internal static Task Text(HttpContext context, string text, string type)
    {
        context.Response.ContentType = type + "; charset=utf-8";
        return context.Response.WriteAsync(text, context.RequestAborted);
    }

    /// <summary>A JSON body.</summary>
    /// <exception cref="ApiException">It is not JSON of this type.</exception>
    internal static async Task<T> BodyAsync<T>(HttpContext context, JsonTypeInfo<T> type) where T : class
    {
        string text = await BodyAsync(context).ConfigureAwait(false);
        return StrictJson.Read(text, type, $"{context.Request.Method} {context.Request.Path}");
    }

    /// <summary>True or false from the query.</summary>
    internal static bool Flag(HttpContext context, string name, bool otherwise) =>
        RouteRoles.Parameter(context, name) is { } text ? text is "true" : otherwise;

    /// <summary>A number of seconds from the query, which <see cref="InputCheck"/> has looked at.</summary>
    internal static TimeSpan Seconds(HttpContext context, string name, int otherwise) =>
        TimeSpan.FromSeconds(RouteRoles.Parameter(context, name) is { } text
            ? int.Parse(text, NumberStyles.None, CultureInfo.InvariantCulture)
            : otherwise);
}
