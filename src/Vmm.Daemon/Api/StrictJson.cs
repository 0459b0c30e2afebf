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

        HashSet<string> seen = new(StringComparer.Ordinal);
        foreach (JsonProperty member in document.RootElement.EnumerateObject())
        {
            string[] known = [.. type.Properties.Select(p => p.Name)];
            string name = Clip(member.Name, LongestName);
            if (!known.Contains(member.Name, StringComparer.Ordinal))
            {
                throw Wrong("", name, Names.Nearest(name, known) is { } near ? $"unknown field; did you mean {near}?"
                    : $"unknown field; known here: {string.Join(", ", known)}");
            }

            if (!seen.Add(member.Name))
            {
                throw Wrong("", name, "given twice");
            }

            if (member.Value.ValueKind == JsonValueKind.Null)
            {
                throw Wrong("", name, $"is null, expected {Expected(type, name)}: leave it out for none");
            }

            if (IsTexts(type, name) && !(member.Value.ValueKind == JsonValueKind.Array
                && member.Value.EnumerateArray().All(each => each.ValueKind == JsonValueKind.String)))
            {
                throw Wrong("", name, $"expected {Expected(type, name)}");
            }
        }

        if (type.Properties.FirstOrDefault(p => p.IsRequired && !seen.Contains(p.Name)) is { } missing)
        {
            throw Wrong("", missing.Name, "is missing");
        }
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
            : "another value";
    }

    private static string Clip(string text, int most) => text.Length <= most ? text : text[..most] + "…";
}
