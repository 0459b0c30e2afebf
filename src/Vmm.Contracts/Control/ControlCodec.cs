using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Vmm.Contracts.Control;

/// <summary>
/// Frames as bytes: <c>VMC1</c>, the length of the rest (32 bits, little endian), JSON. One frame is one packet; the length is there to
/// notice one that is not whole. Reading never throws, whatever the bytes.
/// </summary>
public static class ControlCodec
{
    /// <summary>Longest frame, header included. Below the kernel's default room for one packet (net.core.wmem_default).</summary>
    public const int MaxFrame = 160 * 1024;

    /// <summary>Most descriptors in one frame.</summary>
    public const int MaxDescriptors = 128;

    /// <summary>Most descriptors of one request, in all its frames.</summary>
    public const int MaxRequestDescriptors = 512;

    private const int HeaderLength = 8, MaxKind = 32, MaxName = 32;

    private static ReadOnlySpan<byte> Magic => "VMC1"u8;

    /// <summary>The bytes of a frame.</summary>
    /// <exception cref="ArgumentException">Longer than <see cref="MaxFrame"/>.</exception>
    public static byte[] Encode(ControlFrame frame)
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(frame, ControlJson.Default.ControlFrame);
        if (json.Length > MaxFrame - HeaderLength)
        {
            throw new ArgumentException($"a frame of {json.Length} bytes, the limit is {MaxFrame - HeaderLength}", nameof(frame));
        }

        byte[] bytes = new byte[HeaderLength + json.Length];
        Magic.CopyTo(bytes);
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(4), json.Length);
        json.CopyTo(bytes, HeaderLength);
        return bytes;
    }

    /// <summary>
    /// Reads one packet that came with <paramref name="descriptors"/> descriptors; null, and why, when it is not a sound frame.
    /// </summary>
    public static ControlFrame? TryDecode(ReadOnlySpan<byte> packet, int descriptors, out string problem)
    {
        problem = "";
        if (packet.Length < HeaderLength || packet.Length > MaxFrame || !packet[..4].SequenceEqual(Magic))
        {
            problem = "not a frame";
        }
        else if (BinaryPrimitives.ReadInt32LittleEndian(packet[4..]) != packet.Length - HeaderLength)
        {
            problem = "a frame of another length than it says";
        }
        else if (TryParse(packet[HeaderLength..], ControlJson.Default.ControlFrame, out ControlFrame? frame, out problem)
            && Check(frame, descriptors, out problem))
        {
            return frame;
        }

        return null;
    }

    /// <summary>Reads the body of a frame.</summary>
    public static bool TryBody<T>(ControlFrame frame, JsonTypeInfo<T> type, [NotNullWhen(true)] out T? body, out string problem)
        where T : class
    {
        body = null;
        if (frame.Body is not { } element)
        {
            problem = $"a frame \"{frame.Kind}\" without a body";
            return false;
        }

        problem = Unsound(element);
        return problem.Length == 0 && Guard(() => element.Deserialize(type), out body, out problem);
    }

    // What the serializer, strict about members, lets pass: null in a list, and numbers that become infinite, which nobody could write
    // again. The reader of
    // the frame bounded the depth.
    private static string Unsound(JsonElement element)
    {
        string problem = "";
        if (element.ValueKind == JsonValueKind.Number)
        {
            problem = element.TryGetDouble(out double number) && double.IsFinite(number) ? "" : "a number out of range";
        }
        else if (element.ValueKind == JsonValueKind.Array)
        {
            foreach (JsonElement item in element.EnumerateArray())
            {
                problem = problem.Length > 0 ? problem : item.ValueKind == JsonValueKind.Null ? "null in a list" : Unsound(item);
            }
        }
        else if (element.ValueKind == JsonValueKind.Object)
        {
            foreach (JsonProperty member in element.EnumerateObject())
            {
                problem = problem.Length > 0 ? problem : Unsound(member.Value);
            }
        }

        return problem;
    }

    /// <summary>Makes the body of a frame.</summary>
    public static JsonElement Body<T>(T value, JsonTypeInfo<T> type) => JsonSerializer.SerializeToElement(value, type);

    /// <summary>Reads a JSON text that may be anything.</summary>
    public static bool TryParse<T>(ReadOnlySpan<byte> json, JsonTypeInfo<T> type, [NotNullWhen(true)] out T? value, out string problem)
        where T : class
    {
        byte[] copy = json.ToArray();
        return Guard(() => JsonSerializer.Deserialize(copy, type), out value, out problem);
    }

    private static bool Guard<T>(Func<T?> read, [NotNullWhen(true)] out T? value, out string problem) where T : class
    {
        try
        {
            value = read();
            problem = value is null ? "null where an object is expected" : "";
            return value is not null;
        }
        // InvalidOperationException: strings that are not UTF-8.
        catch (Exception cause) when (cause is JsonException or InvalidOperationException or NotSupportedException or ArgumentException)
        {
            value = null;
            problem = cause.Message;
            return false;
        }
    }

    private static bool Check(ControlFrame frame, int descriptors, out string problem)
    {
        problem = "";
        int named = frame.Descriptors?.Count ?? 0;
        if (frame.Id < 0 || frame.Kind.Length is 0 or > MaxKind)
        {
            problem = "a frame with a bad id or kind";
        }
        else if (named != descriptors)
        {
            problem = $"{named} descriptors named, {descriptors} passed";
        }

        for (int i = 0; i < named && problem.Length == 0; i++)
        {
            string name = frame.Descriptors![i];
            if (name is null || name.Length is 0 or > MaxName)
            {
                problem = "a descriptor with a bad name";
            }

            for (int j = 0; j < i && problem.Length == 0; j++)
            {
                problem = string.Equals(name, frame.Descriptors[j], StringComparison.Ordinal) ? $"two descriptors named \"{name}\"" : "";
            }
        }

        return problem.Length == 0;
    }
}
