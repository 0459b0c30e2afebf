using System.Reflection;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Control;
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
            foreach (string value in Enum.GetNames(type))
            {
                lines[$"{type.Name} = {value}"] = false;
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

    private static string Name(Type type) => Nullable.GetUnderlyingType(type) is { } under ? Name(under) + "?"
        : type.IsGenericType ? $"{type.Name[..type.Name.IndexOf('`', StringComparison.Ordinal)]}<"
            + $"{string.Join(", ", type.GetGenericArguments().Select(Name))}>"
        : type.Name;

    private static IEnumerable<string> Constants(Type type) =>
        type.GetFields(BindingFlags.Public | BindingFlags.Static).Where(f => f.IsLiteral).Select(f => (string)f.GetRawConstantValue()!);
}
