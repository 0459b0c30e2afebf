using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Vmm.Daemon.Guests.Qemu;

/// <summary>Reads lines of the standard agent, which may say anything.</summary>
internal static class QemuAnswer
{
    private const int LongestReason = 300;

    // The deepest answer of the protocol has six levels.
    private static readonly JsonDocumentOptions s_options = new() { MaxDepth = 16 };

    /// <summary>What was returned.</summary>
    /// <param name="line">A line without its end.</param>
    /// <exception cref="QemuAgentException">It is an error of the agent, or no answer.</exception>
    internal static JsonElement Read(ReadOnlyMemory<byte> line)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(line, s_options);
            JsonElement root = document.RootElement;
            if (root.ValueKind == JsonValueKind.Object && root.TryGetProperty("return", out JsonElement value))
            {
                return value.Clone();
            }

            throw root.ValueKind == JsonValueKind.Object && root.TryGetProperty("error", out JsonElement error)
                ? new QemuAgentException(QemuAgentFault.Refused, "the guest's agent refuses: " + ReasonOf(error))
                : new QemuAgentException(QemuAgentFault.Unsound, "the guest's agent says nothing sound");
        }
        catch (Exception cause) when (cause is JsonException or InvalidOperationException)
        {
            // A text with half a character in it is found when it is read.
            throw new QemuAgentException(QemuAgentFault.Unsound, "the guest's agent says nothing sound", cause);
        }
    }

    /// <summary>A returned value in its shape.</summary>
    /// <exception cref="QemuAgentException">It is of another.</exception>
    internal static T As<T>(JsonElement value, JsonTypeInfo<T> shape)
    {
        try
        {
            return value.Deserialize(shape)
                ?? throw new QemuAgentException(QemuAgentFault.Unsound, "the guest's agent answers with nothing");
        }
        catch (Exception cause) when (cause is JsonException or InvalidOperationException or FormatException)
        {
            throw new QemuAgentException(QemuAgentFault.Unsound, "the guest's agent answers something else", cause);
        }
    }

    private static string ReasonOf(JsonElement error)
    {
        string reason = error.ValueKind == JsonValueKind.Object && error.TryGetProperty("desc", out JsonElement text)
            && text.ValueKind == JsonValueKind.String ? text.GetString()! : "it does not say why";
        return reason.Length > LongestReason ? reason[..LongestReason] : reason;
    }
}
