using System.Text.Json;
using System.Text.Json.Serialization;
using Vmm.LifeCycle;

namespace Vmm.Contracts.Control;

/// <summary>
/// States as a worker tells them: the words of the first version of the protocol, some of which are not those of the REST interface. A word
/// that is not in the table is a <see cref="JsonException"/>, as any other body that cannot be read.
/// </summary>
public sealed class ControlStateConverter : JsonConverter<VmState>
{
    // A worker neither saves nor stops for long, and does not judge its end: it has no words for the other states.
    private static readonly (VmState State, string Word)[] s_words =
    [
        (VmState.Defined, "Idle"),
        (VmState.Starting, "Ready"),
        (VmState.Running, "Running"),
        (VmState.Paused, "Paused"),
        (VmState.Crashed, "Crashed"),
        (VmState.Stopped, "Ended"),
    ];

    /// <inheritdoc/>
    public override VmState Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        string? text = reader.TokenType == JsonTokenType.String ? reader.GetString() : null;
        foreach ((VmState state, string word) in s_words)
        {
            if (string.Equals(text, word, StringComparison.OrdinalIgnoreCase)) // as every other enum is read
            {
                return state;
            }
        }

        throw new JsonException("no state of a worker");
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, VmState value, JsonSerializerOptions options)
    {
        foreach ((VmState state, string word) in s_words)
        {
            if (state == value)
            {
                writer.WriteStringValue(word);
                return;
            }
        }

        throw new JsonException($"no word for {value} in the control protocol");
    }
}
