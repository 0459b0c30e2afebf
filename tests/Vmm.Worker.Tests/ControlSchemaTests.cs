using System.Reflection;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Control;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Testing;

namespace Vmm.Worker.Tests;

/// <summary>
/// What travels between daemon and worker, compared with <c>Golden/control-2.txt</c>: every member, enum value and kind of protocol version
/// 2, whose readers
/// refuse what they do not know. The rules are at <see cref="ControlVersion"/>.
/// </summary>
public sealed class ControlSchemaTests
{
    // What version 2 called the types that have another name here; on the wire are only their words.
    private static readonly Dictionary<Type, string> s_named = new()
    {
        [typeof(VmState)] = "WorkerState",
        [typeof(ExitReason)] = "WorkerExitReason",
    };

    private static string Golden => Path.Combine(Tree.Root, "tests", "Vmm.Worker.Tests", "Golden", "control-2.txt");

    [Fact]
    public void Nothing_that_version_2_has_was_removed_renamed_or_changed()
    {
        HashSet<string> now = [.. Schema().Select(line => line.Text)];
        Assert.Equal([], File.ReadAllLines(Golden).Where(line => line.Length > 0 && line[0] != '#' && !now.Contains(line)));
    }

    /// <summary>A reader of version 2 refuses an unknown member and an unknown enum value.</summary>
    [Fact]
    public void What_came_after_version_2_is_left_out_when_it_is_null()
    {
        HashSet<string> before = [.. File.ReadAllLines(Golden)];
        HashSet<string> types = [.. before.Select(TypeOf)];
        // A type that version 2 has not is only in members that came later, and left out with them.
        Assert.Equal([], Schema()
            .Where(line => types.Contains(TypeOf(line.Text)) && !before.Contains(line.Text) && !line.Omitted)
            .Select(line => $"{line.Text}: make it nullable, and leave it out when it is null"));
    }

    /// <summary>One enum is said in other words here than in the REST interface: what is written is what counts.</summary>
    [Theory]
    [InlineData(VmState.Defined, "Idle")]
    [InlineData(VmState.Starting, "Ready")]
    [InlineData(VmState.Running, "Running")]
    [InlineData(VmState.Paused, "Paused")]
    [InlineData(VmState.Crashed, "Crashed")]
    [InlineData(VmState.Stopped, "Ended")]
    public void A_state_is_written_and_read_as_the_first_version_did(VmState state, string word)
    {
        string json = $$"""{"state":"{{word}}"}""";
        Assert.Equal(json, JsonSerializer.Serialize(new StateBody(state), ControlJson.Default.StateBody));
        Assert.Equal(state, JsonSerializer.Deserialize(json, ControlJson.Default.StateBody)!.State);
        Assert.Equal(state, JsonSerializer.Deserialize(json.ToLowerInvariant(), ControlJson.Default.StateBody)!.State);
    }

    /// <summary>A worker of a later release may be in a state that is not known here; one that was taken over says anything.</summary>
    [Theory]
    [InlineData("\"Migrating\"")]
    [InlineData("\"Saved\"")]
    [InlineData("\"Starting\"")]
    [InlineData("2")]
    [InlineData("null")]
    [InlineData("{}")]
    public void A_state_that_is_not_known_is_a_body_that_cannot_be_read(string state)
    {
        ControlFrame frame = new()
        {
            Id = 0,
            Kind = ControlKinds.State,
            Body = JsonDocument.Parse($$"""{"state":{{state}}}""").RootElement,
        };
        Assert.False(ControlCodec.TryBody(frame, ControlJson.Default.StateBody, out _, out string problem));
        Assert.NotEmpty(problem);
    }

    private static string TypeOf(string line) => line.Split('.', ' ')[0];

    [Fact]
    public void Codes_of_errors_are_lower_case_words_and_each_stands_once()
    {
        string[] codes = [.. Constants(typeof(ControlCodes))];
        Assert.NotEmpty(codes);
        Assert.Equal(codes.Length, codes.Distinct(StringComparer.Ordinal).Count());
        Assert.All(codes, code => Assert.Matches("^[a-z]+(-[a-z]+)*$", code));
    }

    /// <summary>One line a member, enum value, kind and code, and whether a sender leaves it out when it has nothing to say.</summary>
    private static IEnumerable<(string Text, bool Omitted)> Schema()
    {
        SortedDictionary<string, bool> lines = new(StringComparer.Ordinal);
        HashSet<Type> seen = [];
        foreach (JsonSerializerContext context in (JsonSerializerContext[])[ControlJson.Default, VmSpecJson.Default])
        {
            IEnumerable<Type> roots = context.GetType().CustomAttributes
                .Where(a => a.AttributeType == typeof(JsonSerializableAttribute))
                .Select(a => (Type)a.ConstructorArguments[0].Value!);
            foreach (Type root in roots)
            {
                Add(context, root, lines, seen);
            }
        }

        foreach (string kind in Constants(typeof(ControlKinds)))
        {
            lines[$"kind {kind}"] = true; // an unknown kind is answered, an unknown event ignored
        }

        return lines.Select(line => (line.Key, line.Value));
    }

    private static void Add(JsonSerializerContext context, Type type, SortedDictionary<string, bool> lines, HashSet<Type> seen)
    {
        type = Nullable.GetUnderlyingType(type) ?? type;
        if (!seen.Add(type) || type == typeof(JsonElement) || context.GetTypeInfo(type) is not { } info)
        {
            return;
        }

        if (type.IsEnum)
        {
            foreach (string word in Words(type, info))
            {
                lines[$"{Name(type)} = {word}"] = false;
            }
        }
        else if (info.Kind is JsonTypeInfoKind.Enumerable or JsonTypeInfoKind.Dictionary)
        {
            Add(context, info.ElementType!, lines, seen);
        }
        else
        {
            foreach (JsonPropertyInfo member in info.Properties)
            {
                if (member.Get is null && member.Set is null)
                {
                    continue; // [JsonIgnore]
                }

                lines[$"{type.Name}.{member.Name}: {Name(member.PropertyType)}{(member.IsRequired ? ", required" : "")}"] = IsOmitted(
                    context, member);
                Add(context, member.PropertyType, lines, seen);
            }
        }
    }

    private static bool IsOmitted(JsonSerializerContext context, JsonPropertyInfo member)
    {
        bool nullable = !member.PropertyType.IsValueType || Nullable.GetUnderlyingType(member.PropertyType) is not null;
        bool always = context.Options.DefaultIgnoreCondition is JsonIgnoreCondition.WhenWritingNull;
        return nullable && !member.IsRequired && (always || member.ShouldSerialize?.Invoke(new object(), null) == false);
    }

    /// <summary>The words of an enum as they are written: one without a word never travels.</summary>
    private static IEnumerable<string> Words(Type type, JsonTypeInfo info)
    {
        JsonSerializerOptions options = type == typeof(VmState)
            ? new JsonSerializerOptions { Converters = { new ControlStateConverter() }, TypeInfoResolver = ControlJson.Default }
            : info.Options;
        foreach (object value in Enum.GetValues(type))
        {
            string word;
            try
            {
                word = JsonSerializer.SerializeToElement(value, type, options).GetString()!;
            }
            catch (JsonException) when (type == typeof(VmState))
            {
                continue;
            }

            yield return word;
        }
    }

    private static string Name(Type type) => Nullable.GetUnderlyingType(type) is { } under ? Name(under) + "?"
        : type.IsGenericType ? $"{type.Name[..type.Name.IndexOf('`', StringComparison.Ordinal)]}<"
            + $"{string.Join(", ", type.GetGenericArguments().Select(Name))}>"
        : s_named.GetValueOrDefault(type, type.Name);

    private static IEnumerable<string> Constants(Type type) =>
        type.GetFields(BindingFlags.Public | BindingFlags.Static).Where(f => f.IsLiteral).Select(f => (string)f.GetRawConstantValue()!);
}
