namespace Vmm.Spec;

/// <summary>
/// Puts an entry into a list of a spec file, or takes one out, without touching the rest of the text: comments and order are the user's. It
/// knows lists in block style. Each change is read again; a text that does not then say what it should is not given out.
/// </summary>
public static class SpecEdit
{
    /// <summary>The text with one more disk at the end; null when this text cannot be changed by a program.</summary>
    public static string? Add(string text, string? folder, DiskSpec disk) =>
        Checked(text, folder, Insert(text, "disks", Item(disk)), spec => spec with { Disks = [.. spec.Disks, disk] });

    /// <summary>The text with one more network device at the end; null when this text cannot be changed by a program.</summary>
    public static string? Add(string text, string? folder, NetSpec net) =>
        Checked(text, folder, Insert(text, "nets", Item(net)), spec => spec with { Nets = [.. spec.Nets, net] });

    /// <summary>The text without a disk; null when this text cannot be changed by a program.</summary>
    public static string? RemoveDisk(string text, string? folder, int index) =>
        Checked(text, folder, Cut(text, "disks", index), spec => spec with { Disks = [.. spec.Disks.Where((_, i) => i != index)] });

    /// <summary>The text with another disk in place of one; null when this text cannot be changed by a program.</summary>
    public static string? ReplaceDisk(string text, string? folder, int index, DiskSpec disk) => Checked(
        text,
        folder,
        Exchange(text, "disks", index, Item(disk)),
        spec => spec with { Disks = [.. spec.Disks.Select((old, i) => i == index ? disk : old)] });

    /// <summary>The text without a network device; null when this text cannot be changed by a program.</summary>
    public static string? RemoveNet(string text, string? folder, int index) =>
        Checked(text, folder, Cut(text, "nets", index), spec => spec with { Nets = [.. spec.Nets.Where((_, i) => i != index)] });

    /// <summary>The text with another network device in place of one; null when this text cannot be changed by a program.</summary>
    public static string? ReplaceNet(string text, string? folder, int index, NetSpec net) => Checked(
        text,
        folder,
        Exchange(text, "nets", index, Item(net)),
        spec => spec with { Nets = [.. spec.Nets.Select((old, i) => i == index ? net : old)] });

    /// <summary>The text with another name of the VM; null when this text cannot be changed by a program.</summary>
    public static string? Rename(string text, string? folder, string name) =>
        Checked(text, folder, Put(text, "name", name), spec => spec with { Name = name });

    /// <summary>The text with another VM generation id; null when this text cannot be changed by a program.</summary>
    public static string? SetGenerationId(string text, string? folder, string id) =>
        Checked(text, folder, Put(text, "generationId", id), spec => spec with { GenerationId = id });

    /// <summary>The text with other words to the guest about its machine; null when this text cannot be changed by a program.</summary>
    public static string? SetSmbios(string text, string? folder, SmbiosSpec smbios) => Checked(
        text,
        folder,
        Put(text, "smbios", SpecWriter.Write(VmFields.Part("smbios"), smbios)),
        spec => spec with { Smbios = smbios });

    /// <summary>The text without a field of the VM; null when this text cannot be changed by a program.</summary>
    /// <param name="text">The spec.</param>
    /// <param name="folder">What relative paths in it are relative to.</param>
    /// <param name="field">The name of the field; it is there.</param>
    /// <param name="change">What the spec says without it.</param>
    public static string? RemoveField(string text, string? folder, string field, Func<VmSpec, VmSpec> change) =>
        Checked(text, folder, Put(text, field, null), change);

    /// <summary>The text without an entry of a list of the VM; null when this text cannot be changed by a program.</summary>
    /// <param name="text">The spec.</param>
    /// <param name="folder">What relative paths in it are relative to.</param>
    /// <param name="list">The name of the list.</param>
    /// <param name="index">The entry.</param>
    /// <param name="change">What the spec says without it.</param>
    public static string? RemoveItem(string text, string? folder, string list, int index, Func<VmSpec, VmSpec> change) =>
        Checked(text, folder, Cut(text, list, index), change);

    /// <summary>
    /// The text with another resident limit; null when this text cannot be changed by a program. An object <c>memory</c> that has no line
    /// of its own for the limit becomes one line, without the comments that were in it.
    /// </summary>
    public static string? SetResident(string text, string? folder, MemoryPortion resident) => Checked(
        text,
        folder,
        Resident(text, resident),
        spec => spec with { Paging = (spec.Paging ?? new PagingSpec()) with { Resident = resident } });

    private static string? Resident(string text, MemoryPortion resident)
    {
        if (Find(text, "memory") is not { } place)
        {
            string end = text.Length == 0 || text[^1] == '\n' ? "" : "\n";
            return $"{text}{end}memory: {{resident: {resident.ToString()}}}\n";
        }

        (List<string> lines, SpecNode key, SpecNode value, int after) = place;
        int first = (int)key.Line - 1, column = (int)value.Column - 1;
        if (value is { Plain: true, Scalar: { } size } && value.Line == key.Line
            && lines[first].AsSpan(column).StartsWith(size, StringComparison.Ordinal))
        {
            (string before, string behind) = (lines[first][..column], lines[first][(column + size.Length)..]);
            lines[first] = $"{before}{{size: {size}, resident: {resident.ToString()}}}{behind}";
            return string.Join('\n', lines);
        }

        List<string> parts = [];
        foreach ((SpecNode part, SpecNode said) in value.Map ?? [])
        {
            int line = (int)said.Line - 1;
            if (part.Scalar is "resident" && part.Line > key.Line && said.Scalar is { } old
                && lines[line].AsSpan().Trim().StartsWith("resident:", StringComparison.Ordinal))
            {
                int at = lines[line].IndexOf(old, StringComparison.Ordinal);
                lines[line] = at < 0 ? "" : $"{lines[line][..at]}{resident.ToString()}{lines[line][(at + old.Length)..]}";
                return string.Join('\n', lines);
            }

            if (part.Scalar is not "resident")
            {
                parts.Add($"{part.Scalar}: {Quoted(said)}");
            }
        }

        if (value.Map is null)
        {
            return null;
        }

        lines.RemoveRange(first, after - first);
        lines.Insert(first, $"memory: {{{string.Join(", ", parts)}{(parts.Count > 0 ? ", " : "")}resident: {resident.ToString()}}}");
        return string.Join('\n', lines);
    }

    private static string Quoted(SpecNode scalar) =>
        scalar.Plain ? scalar.Scalar! : $"\"{System.Text.Json.JsonEncodedText.Encode(scalar.Scalar ?? "").Value}\"";

    /// <summary>A disk as an entry of <c>disks</c>, on one line; what has its default is left out.</summary>
    public static string Item(DiskSpec disk) => SpecWriter.Write(VmFields.Part("disks"), disk);

    /// <summary>A network device as an entry of <c>nets</c>, on one line; what has its default is left out.</summary>
    public static string Item(NetSpec net) => SpecWriter.Write(VmFields.Part("nets"), net);

    /// <summary>The new text, when it says the old spec with the change and nothing else.</summary>
    /// <exception cref="SpecException">The spec with the change is not sound, or the old one was not.</exception>
    private static string? Checked(string text, string? folder, string? edited, Func<VmSpec, VmSpec> change)
    {
        VmSpec wanted = change(SpecReader.Read(text, "spec", folder));
        if (SpecValidation.Validate(wanted) is { Count: > 0 } problems)
        {
            throw new SpecException(problems);
        }

        try
        {
            return edited is not null && string.Equals(
                VmSpecJson.Write(wanted).GetRawText(),
                VmSpecJson.Write(SpecReader.Read(edited, "spec", folder)).GetRawText(),
                StringComparison.Ordinal)
                ? edited
                : null;
        }
        catch (SpecException)
        {
            return null; // written in a way that an edit by lines breaks
        }
    }

    private static string? Insert(string text, string list, string item)
    {
        if (Find(text, list) is not { } place)
        {
            string end = text.Length == 0 || text[^1] == '\n' ? "" : "\n";
            return $"{text}{end}{list}:\n  - {item}\n";
        }

        (List<string> lines, SpecNode key, SpecNode value, int after) = place;
        if (value.List is null)
        {
            return null;
        }

        if (value.List.Count == 0)
        {
            lines[(int)key.Line - 1] = list + ":"; // it was an empty list on the line of its name
            lines.Insert((int)key.Line, $"  - {item}");
            return string.Join('\n', lines);
        }

        string first = lines[(int)value.List[0].Line - 1];
        int dash = first.IndexOf('-', StringComparison.Ordinal);
        if (dash < 0 || first.AsSpan(0, dash).ContainsAnyExcept(' '))
        {
            return null;
        }

        lines.Insert(after, $"{first[..dash]}- {item}");
        return string.Join('\n', lines);
    }

    // A field on one line, or none in its place.
    private static string? Put(string text, string field, string? value)
    {
        if (Find(text, field) is not { } place)
        {
            string end = text.Length == 0 || text[^1] == '\n' ? "" : "\n";
            return value is null ? null : $"{text}{end}{field}: {value}\n";
        }

        (List<string> lines, SpecNode key, _, int after) = place;
        int from = (int)key.Line - 1;
        if (after <= from)
        {
            return null;
        }

        lines.RemoveRange(from, after - from);
        if (value is not null)
        {
            lines.Insert(from, $"{field}: {value}");
        }

        return string.Join('\n', lines);
    }

    private static string? Exchange(string text, string list, int index, string item)
    {
        if (Find(text, list) is not { } place || place.Value.List is not { } items || index >= items.Count)
        {
            return null;
        }

        (List<string> lines, _, _, int after) = place;
        int from = (int)items[index].Line - 1, to = index + 1 < items.Count ? (int)items[index + 1].Line - 1 : after;
        int dash = to > from ? lines[from].IndexOf('-', StringComparison.Ordinal) : -1;
        if (dash < 0 || lines[from].AsSpan(0, dash).ContainsAnyExcept(' '))
        {
            return null;
        }

        lines.RemoveRange(from, to - from);
        lines.Insert(from, new string(' ', dash) + "- " + item);
        return string.Join('\n', lines);
    }

    private static string? Cut(string text, string list, int index)
    {
        if (Find(text, list) is not { } place || place.Value.List is not { } items || index >= items.Count)
        {
            return null;
        }

        (List<string> lines, SpecNode key, _, int after) = place;
        int from = items.Count == 1 ? (int)key.Line - 1 : (int)items[index].Line - 1;
        int to = index + 1 < items.Count ? (int)items[index + 1].Line - 1 : after;
        if (to <= from)
        {
            return null;
        }

        lines.RemoveRange(from, to - from);
        return string.Join('\n', lines);
    }

    /// <summary>
    /// A field of the document: its lines, its name, its value, and the number of lines up to its end (blank lines and comments behind it
    /// are the next field's).
    /// </summary>
    private static (List<string> Lines, SpecNode Key, SpecNode Value, int After)? Find(string text, string field)
    {
        List<(SpecNode Key, SpecNode Value)>? map = SpecNode.ReadDocument(new StringReader(text))?.Map;
        int at = map?.FindIndex(f => string.Equals(f.Key.Scalar, field, StringComparison.Ordinal)) ?? -1;
        if (at < 0)
        {
            return null;
        }

        List<string> lines = [.. text.Split('\n')];
        int after = at + 1 < map!.Count ? (int)map[at + 1].Key.Line - 1 : lines.Count;
        while (after > (int)map[at].Key.Line && (lines[after - 1].AsSpan().Trim().IsEmpty || lines[after - 1].StartsWith('#')
            || lines[after - 1].StartsWith("...", StringComparison.Ordinal)))
        {
            after--;
        }

        return (lines, map[at].Key, map[at].Value, after);
    }
}
