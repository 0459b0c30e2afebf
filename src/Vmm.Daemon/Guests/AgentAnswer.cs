using System.Text.Json;
using System.Text.Json.Serialization;
using Vmm.Contracts;

namespace Vmm.Daemon.Guests;

/// <summary>
/// What the guest agent answers to the questions about itself and to freeze and thaw (deploy/guest-agent/README.md). Each answer has some
/// of these; a guest may say anything.
/// </summary>
/// <param name="V">Version of the lines, 1.</param>
/// <param name="Error">Why not.</param>
/// <param name="Agent">The agent's release.</param>
/// <param name="Memory">It tells of memory.</param>
/// <param name="Freeze">It can freeze.</param>
/// <param name="Why">Why it cannot freeze.</param>
/// <param name="Frozen">How many file systems it froze.</param>
/// <param name="Left">How many on disks could not be frozen and are written on.</param>
/// <param name="Thawed">How many it thawed.</param>
/// <param name="Late">They were thawed earlier: nobody can rely on the freeze.</param>
internal sealed record AgentAnswer(int V, string? Error = null, string? Agent = null, bool Memory = false, bool Freeze = false,
    string? Why = null, int Frozen = 0, int Left = 0, int Thawed = 0, bool Late = false)
{
    /// <summary>What an agent says to a question that it does not know, as an older one does.</summary>
    internal const string NotUnderstood = "not understood";

    private const int MostFileSystems = 4096, LongestText = 300;

    /// <summary>Reads a line of a guest; null when it is not sound. Its texts are fit for terminals and short.</summary>
    internal static AgentAnswer? TryRead(ReadOnlySpan<byte> line)
    {
        try
        {
            return JsonSerializer.Deserialize(line, GuestJson.Default.AgentAnswer) is { V: 1 } answer
                && answer.Frozen is >= 0 and <= MostFileSystems && answer.Left is >= 0 and <= MostFileSystems
                && answer.Thawed is >= 0 and <= MostFileSystems
                ? answer with { Error = Safe(answer.Error), Agent = Safe(answer.Agent), Why = Safe(answer.Why) }
                : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }

    private static string? Safe(string? text) => text is null ? null : SafeText.Line(text, LongestText);
}

/// <summary>JSON of the agent's answers.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    MaxDepth = 4)]
[JsonSerializable(typeof(AgentAnswer))]
internal sealed partial class GuestJson : JsonSerializerContext;
