using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Spec;

namespace Vmm.Daemon.Api;

/// <summary>
/// JSON of request bodies: an unknown member, one given twice, one that is missing and a null are refused. Answers are read by clients that
/// may be older, and keep to <see cref="RestJson"/>.
/// </summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    AllowDuplicateProperties = false,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    GenerationMode = JsonSourceGenerationMode.Metadata)]
[JsonSerializable(typeof(BalancerWish))]
[JsonSerializable(typeof(ConsoleSize))]
[JsonSerializable(typeof(CpuLimits))]
[JsonSerializable(typeof(DeviceLimits))]
[JsonSerializable(typeof(DiskSizeWish))]
[JsonSerializable(typeof(DiskCopyWish))]
[JsonSerializable(typeof(SnapshotWish))]
[JsonSerializable(typeof(BackupRequest))]
[JsonSerializable(typeof(GuestExecWish))]
[JsonSerializable(typeof(DiskStreamWish))]
[JsonSerializable(typeof(DiskCommitWish))]
[JsonSerializable(typeof(DiskRequest))]
[JsonSerializable(typeof(ImageRequest))]
[JsonSerializable(typeof(NetworkRequest))]
[JsonSerializable(typeof(NetworkChange))]
[JsonSerializable(typeof(ImageExportRequest))]
[JsonSerializable(typeof(LogSettings))]
[JsonSerializable(typeof(MemoryWish))]
[JsonSerializable(typeof(RehomeRequest))]
[JsonSerializable(typeof(SavedFolderRequest))]
[JsonSerializable(typeof(RestoreRequest))]
[JsonSerializable(typeof(TokenWish))]
[JsonSerializable(typeof(UpgradeRequest))]
[JsonSerializable(typeof(MigrateRequest))]
[JsonSerializable(typeof(SettleRequest))]
[JsonSerializable(typeof(MigrationOffer))]
[JsonSerializable(typeof(ReplicaOffer))]
[JsonSerializable(typeof(ReplicaPointOffer))]
[JsonSerializable(typeof(FailoverWish))]
[JsonSerializable(typeof(VmSeedWish))]
[JsonSerializable(typeof(ReplicaWish))]
[JsonSerializable(typeof(ReplicaPauseWish))]
internal sealed partial class RequestJson : JsonSerializerContext;

/// <summary>Reads the JSON of a request body and names what is wrong with it.</summary>
internal static class StrictJson
{
    private const int LongestName = 64, LongestMessage = 300;

    /// <summary>The value.</summary>
    /// <exception cref="ApiException">It is not a JSON object of this type; the field is named.</exception>
    internal static T Read<T>(string text, JsonTypeInfo<T> type, string request) where T : class
    {
        try
        {
            CheckMembers(text, type);
            return JsonSerializer.Deserialize(text, type) ?? throw new JsonException("null is no answer");
        }
        catch (JsonException e)
        {
            string field = (e.Path ?? "").TrimStart('$').TrimStart('.');
            string problem = field.Length > 0 ? $"expected {Expected(type, field)}" : Clip(e.Message, LongestMessage);
            throw Wrong(request, field, problem, (e.LineNumber ?? 0) + 1, e);
        }
        catch (InvalidOperationException e)
        {
            throw Wrong(request, "", "a name or a text in it is no Unicode: half of a surrogate pair", cause: e);
        }
    }

    /// <summary>The reader would refuse them too, but speaks of types of this program.</summary>
    private static void CheckMembers(string text, JsonTypeInfo type)
    {
        using JsonDocument document = JsonDocument.Parse(text);
        if (document.RootElement.ValueKind != JsonValueKind.Object)
        {
            throw new JsonException("expected an object: {\"name\": value}");
        }

        CheckMembers(document.RootElement, type, "");
    }

    // What an object has itself comes before what the objects in it have.
    private static void CheckMembers(JsonElement thing, JsonTypeInfo type, string path)
    {
        HashSet<string> seen = new(StringComparer.Ordinal);
        foreach (JsonProperty member in thing.EnumerateObject())
        {
            string[] known = [.. type.Properties.Select(p => p.Name)];
            string name = Clip(member.Name, LongestName);
            if (!known.Contains(member.Name, StringComparer.Ordinal))
            {
                throw Wrong("", path + name, Names.Nearest(name, known) is { } near ? $"unknown field; did you mean {near}?"
                    : $"unknown field; known here: {string.Join(", ", known)}");
            }

            if (!seen.Add(member.Name))
            {
                throw Wrong("", path + name, "given twice");
            }

            if (member.Value.ValueKind == JsonValueKind.Null)
            {
                throw Wrong("", path + name, $"is null, expected {Expected(type, name)}: leave it out for none");
            }

            if ((IsTexts(type, name) && !IsListOf(member.Value, JsonValueKind.String))
                || (PartOf(type, name) is { } part
                    && (part.IsList ? !IsListOf(member.Value, JsonValueKind.Object) : member.Value.ValueKind != JsonValueKind.Object)))
            {
                throw Wrong("", path + name, $"expected {Expected(type, name)}");
            }
        }

        if (type.Properties.FirstOrDefault(p => p.IsRequired && !seen.Contains(p.Name)) is { } missing)
        {
            throw Wrong("", path + missing.Name, "is missing");
        }

        foreach (JsonProperty member in thing.EnumerateObject())
        {
            if (PartOf(type, member.Name) is not { } part)
            {
                continue;
            }

            int number = 0;
            foreach (JsonElement each in part.IsList ? [.. member.Value.EnumerateArray()] : new[] { member.Value })
            {
                CheckMembers(each, part.Type, part.IsList ? $"{path}{member.Name}[{number++}]." : $"{path}{member.Name}.");
            }
        }
    }

    private static bool IsListOf(JsonElement value, JsonValueKind kind) =>
        value.ValueKind == JsonValueKind.Array && value.EnumerateArray().All(each => each.ValueKind == kind);

    // A field that is an object of our own, or a list of such.
    private static (JsonTypeInfo Type, bool IsList)? PartOf(JsonTypeInfo type, string field)
    {
        Type wanted = type.Properties.First(p => string.Equals(p.Name, field, StringComparison.Ordinal)).PropertyType;
        JsonTypeInfo info = type.Options.GetTypeInfo(wanted);
        bool isList = info.Kind == JsonTypeInfoKind.Enumerable;
        JsonTypeInfo each = isList ? type.Options.GetTypeInfo(info.ElementType!) : info;
        return each.Kind == JsonTypeInfoKind.Object ? (each, isList) : null;
    }

    private static bool IsTexts(JsonTypeInfo type, string field) =>
        type.Properties.First(p => string.Equals(p.Name, field, StringComparison.Ordinal)).PropertyType == typeof(IReadOnlyList<string>);

    private static ApiException Wrong(string request, string field, string problem, long line = 0, Exception? cause = null)
    {
        string named = field.Length > 0 ? $"{field}: {problem}" : problem;
        return new ApiException(400, "bad-request", "the request cannot be read", request.Length > 0
            ? $"the body is not the JSON that {request} takes: {named}"
            : named,
            field.Length > 0 ? [new FieldProblem(field, problem, line)] : null, cause);
    }

    private static string Expected(JsonTypeInfo type, string field)
    {
        Type? wanted = type.Properties.FirstOrDefault(p => string.Equals(p.Name, field, StringComparison.Ordinal))?.PropertyType;
        wanted = wanted is null ? null : Nullable.GetUnderlyingType(wanted) ?? wanted;
        return wanted == typeof(bool) ? "true or false"
            : wanted == typeof(string) ? "a text"
            : wanted == typeof(IReadOnlyList<string>) ? "a list of texts"
            : wanted == typeof(byte[]) ? "bytes in base64"
            : wanted == typeof(int) ? $"a whole number from {int.MinValue} to {int.MaxValue}"
            : wanted == typeof(long) ? $"a whole number from {long.MinValue} to {long.MaxValue}"
            : wanted == typeof(ulong) ? $"a whole number from 0 to {ulong.MaxValue}"
            : wanted is not null && type.Options.GetTypeInfo(wanted).Kind == JsonTypeInfoKind.Object ? "an object"
            : wanted is not null && type.Options.GetTypeInfo(wanted).Kind == JsonTypeInfoKind.Enumerable ? "a list of objects"
            : "another value";
    }

    private static string Clip(string text, int most) => text.Length <= most ? text : text[..most] + "…";
}
