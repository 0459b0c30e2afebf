using System.Text.Json;

namespace Vmm.Spec;

/// <summary>
/// Makes the relative paths of a spec whole, so that its text says the same in any folder. The rest of the text stays. What comes out is
/// read again; a text that does not then say what it should is not given out.
/// </summary>
public static class SpecPaths
{
    /// <summary>The text with whole paths; null when this text cannot be changed by a program.</summary>
    /// <param name="text">The spec.</param>
    /// <param name="folder">What relative paths in it are relative to.</param>
    /// <exception cref="SpecException">The spec is not sound.</exception>
    public static string? MakeWhole(string text, string folder)
    {
        string wanted = VmSpecJson.Write(SpecReader.Read(text, "spec", folder)).GetRawText();
        if (SpecNode.ReadDocument(new StringReader(text)) is not { } root)
        {
            return null;
        }

        List<(SpecNode Value, SpecField Field)> paths = [];
        Collect(root, VmFields.Root, paths);
        List<string> lines = [.. text.Split('\n')];
        // From behind: places before a change stay.
        foreach ((SpecNode value, SpecField field) in paths.OrderByDescending(each => (each.Value.Line, each.Value.Column)))
        {
            if (value.Scalar is { Length: > 0 } path && !Path.IsPathRooted(path)
                && !string.Equals(path, field.Keyword, StringComparison.Ordinal) && !Replace(lines, value, Path.Combine(folder, path)))
            {
                return null;
            }
        }

        string whole = string.Join('\n', lines);
        try
        {
            return string.Equals(wanted, VmSpecJson.Write(SpecReader.Read(whole, "spec", null)).GetRawText(), StringComparison.Ordinal)
                ? whole
                : null;
        }
        catch (SpecException)
        {
            return null; // written in a way that an edit by lines breaks
        }
    }

    private static void Collect(SpecNode node, SpecField type, List<(SpecNode Value, SpecField Field)> paths)
    {
        if (type.Kind == SpecKind.Path && node.Scalar is not null)
        {
            paths.Add((node, type));
        }

        foreach (SpecNode item in node.List ?? [])
        {
            if (type.Item is { } simple)
            {
                Collect(item, simple, paths);
            }
            else
            {
                CollectMembers(item, type.Kinds is { } kinds ? [.. kinds().SelectMany(kind => kind.Fields)] : type.Fields, paths);
            }
        }

        CollectMembers(node, [.. type.Fields, .. type.Parts], paths);
    }

    private static void CollectMembers(SpecNode node, IReadOnlyList<SpecField> fields, List<(SpecNode Value, SpecField Field)> paths)
    {
        foreach ((SpecNode key, SpecNode value) in node.Map ?? [])
        {
            if (fields.FirstOrDefault(field => string.Equals(field.Name, key.Scalar, StringComparison.Ordinal)) is { } field)
            {
                Collect(value, field, paths);
            }
        }
    }

    // As it stands on its line, with quotes or without.
    private static bool Replace(List<string> lines, SpecNode value, string path)
    {
        (int line, int column) = ((int)value.Line - 1, (int)value.Column - 1);
        string old = value.Scalar!;
        if (line >= lines.Count || column >= lines[line].Length)
        {
            return false;
        }

        string found = Array.Find(
            [old, $"\"{old}\"", $"'{old}'"],
            form => string.CompareOrdinal(lines[line], column, form, 0, form.Length) == 0) ?? "";
        lines[line] = $"{lines[line][..column]}\"{JsonEncodedText.Encode(path).Value}\"{lines[line][(column + found.Length)..]}";
        return found.Length > 0;
    }
}
