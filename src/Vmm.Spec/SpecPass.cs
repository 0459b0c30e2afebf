using System.Globalization;
using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>
/// One reading of a document: its nodes become values, and what is wrong is noted with its place, the first
/// <see cref="SpecException.MostProblems"/> in words.
/// </summary>
internal sealed class SpecPass(string file, string? folder, CancellationToken cancellation)
{
    private const int LongestPath = 100, LongestValue = 64;

    private readonly Dictionary<string, SpecNode> _places = new(StringComparer.Ordinal);

    // Where a field was given that the rules know by its place in the short form.
    private readonly Dictionary<string, string> _otherForms = new(StringComparer.Ordinal);

    private readonly List<SpecProblem> _problems = [];
    private int _more;
    private bool _tooMany;

    /// <summary>The record of an object. What is missing or wrong keeps its default.</summary>
    public object ReadObject(SpecNode node, SpecField type, string path) =>
        ReadObject(node, type, path, new HashSet<string>(StringComparer.Ordinal), "");

    /// <summary>
    /// The same; the names of the fields that have a value go into <paramref name="outer"/> with <paramref name="prefix"/> before them.
    /// </summary>
    private object ReadObject(SpecNode node, SpecField type, string path, HashSet<string> outer, string prefix)
    {
        object owner = type.Create!();
        _places[path] = node;
        HashSet<string> given = new(StringComparer.Ordinal), read = new(StringComparer.Ordinal);
        if (node.Map is null)
        {
            Add(node, path, "expected fields (name: value)");
            return owner;
        }

        foreach ((SpecNode key, SpecNode value) in node.Map)
        {
            cancellation.ThrowIfCancellationRequested();
            string name = key.Scalar ?? "?";
            string fieldPath = Join(path, name);
            SpecField? field = Array.Find(type.Fields, f => string.Equals(f.Name, name, StringComparison.Ordinal));
            if (field is null)
            {
                AddUnknown(key, name, fieldPath, type);
            }
            else if (!given.Add(name))
            {
                Add(key, fieldPath, "given twice");
            }
            else if (field.OtherForm)
            {
                foreach (SpecField inner in field.Fields)
                {
                    _otherForms[Join(path, inner.Name)] = Join(fieldPath, inner.Name);
                }

                owner = field.Set(owner, ReadValue(value, field, fieldPath, read) ?? field.Get(owner)!);
            }
            else if (field.Parts.Length > 0 && value.Map is not null)
            {
                owner = ReadParts(value, field, fieldPath, owner, read);
            }
            else if (ReadValue(value, field, fieldPath, read) is { } item)
            {
                owner = field.Set(owner, item);
                read.Add(name);
            }
        }

        CheckGiven(node, type, path, given);
        foreach (string name in read)
        {
            outer.Add(prefix + name);
        }

        return type.Complete is { } complete ? complete(owner, read) : owner;
    }

    /// <summary>The owner with what the object form of a field says; the field has a value when its first part has one.</summary>
    private object ReadParts(SpecNode node, SpecField field, string path, object owner, HashSet<string> read)
    {
        SpecField form = new(field.Name, SpecKind.Object, field.Help) { Create = () => owner, Fields = field.Parts };
        HashSet<string> given = new(StringComparer.Ordinal);
        owner = ReadObject(node, form, path, given, "");
        if (given.Contains(field.Parts[0].Name))
        {
            _otherForms[path] = Join(path, field.Parts[0].Name);
            read.Add(field.Name);
        }

        return owner;
    }

    private static string Join(string path, string name) => path.Length > 0 ? $"{path}.{name}" : name;

    private void AddUnknown(SpecNode key, string name, string path, SpecField type)
    {
        string? near = IsFull ? null : Names.Nearest(name, type.Fields.Select(f => f.Name));
        Add(key, Clip(path, LongestPath), IsFull ? ""
            : near is null ? $"unknown field; known here: {string.Join(", ", type.Fields.Select(f => f.Name))}"
            : $"unknown field; did you mean {near}?");
    }

    /// <summary>What must be there is, and nothing is said in two forms.</summary>
    private void CheckGiven(SpecNode node, SpecField type, string path, HashSet<string> given)
    {
        foreach (SpecField field in type.Fields)
        {
            bool other = field.InsteadOf is { } form && given.Contains(form), there = given.Contains(field.Name);
            if (other && there)
            {
                Add(node, Join(path, field.Name), $"belongs into {field.InsteadOf} here, which is given");
            }
            else if (field.Required && !there && !other && !field.Unless.Any(given.Contains))
            {
                Add(node, Join(path, field.Name), "is missing");
            }
        }
    }

    /// <summary>The part, unless there is a problem with it.</summary>
    /// <param name="part">What was read.</param>
    /// <param name="problems">What is wrong with it, apart from what was noted while it was read.</param>
    /// <param name="more">How many problems more there are.</param>
    public T Sound<T>(T part, IReadOnlyList<SpecProblem> problems, int more = 0)
    {
        if (_more == 0) // else most of it follows from what is not told
        {
            foreach (SpecProblem problem in problems)
            {
                AddValidation(problem);
            }

            _more += more;
        }

        return _problems.Count == 0 ? part : throw Refused();
    }

    /// <summary>Refuses a list that has more entries than there can be: what follows looks at pairs of them.</summary>
    /// <exception cref="SpecException">There is one.</exception>
    public void RequireCounts()
    {
        if (_tooMany)
        {
            throw Refused();
        }
    }

    /// <summary>The beginning of a text that a client chose.</summary>
    public static string Clip(string text, int most) => text.Length <= most ? text : text[..most] + "…";

    private bool IsFull => _problems.Count == SpecException.MostProblems;

    private SpecException Refused()
    {
        IEnumerable<SpecProblem> sorted = _problems.OrderBy(p => p.Line).ThenBy(p => p.Column);
        return new SpecException(_more == 0 ? [.. sorted] : [.. sorted, SpecComplaints.Rest(_more) with { File = file }]);
    }

    /// <summary>
    /// A validation problem belongs to its field, or to the nearest parent in the file; one on a field already reported adds nothing.
    /// </summary>
    private void AddValidation(SpecProblem problem)
    {
        problem = problem with { Path = _otherForms.GetValueOrDefault(problem.Path, problem.Path) };
        if (_problems.Exists(p => Covers(p.Path, problem.Path)))
        {
            return;
        }

        string path = problem.Path;
        SpecNode? node;
        while (!_places.TryGetValue(path, out node) && path.Length > 0)
        {
            path = path[..Math.Max(0, path.LastIndexOfAny(['.', '[']))];
        }

        if (IsFull)
        {
            _more++;
            return;
        }

        _problems.Add(problem with { File = file, Line = node?.Line ?? 0, Column = node?.Column ?? 0 });
    }

    // A problem of all entries of a list (vnodes[*].memory) follows from one of that field of any of them.
    private static bool Covers(string reported, string path) =>
        string.Equals(reported, path, StringComparison.Ordinal)
        || (path.IndexOf("[*]", StringComparison.Ordinal) is > 0 and int star
            && reported.StartsWith(path[..(star + 1)], StringComparison.Ordinal)
            && reported.EndsWith(path[(star + 2)..], StringComparison.Ordinal))
        || path.StartsWith(reported + ".", StringComparison.Ordinal)
        || reported.StartsWith(path + ".", StringComparison.Ordinal)
        || reported.StartsWith(path + "[", StringComparison.Ordinal);

    private object? ReadValue(SpecNode node, SpecField field, string path, HashSet<string> outer)
    {
        _places[path] = node;
        switch (field.Kind)
        {
            case SpecKind.Object when field.Switch && node is { Plain: true, Scalar: "true" or "false" }:
                return node.Scalar is "true" ? Defaults(field) : null;
            case SpecKind.Object:
                return ReadObject(node, field, path, outer, field.Name + ".");
            case SpecKind.List:
                return ReadList(node, field, path);
        }

        if (node.Scalar is not { } text)
        {
            return Wrong(node, path, $"expected {Expected(field)}, not a list or fields");
        }

        if (node.Plain && text is "" or "~" or "null")
        {
            return Wrong(node, path, $"is empty, expected {Expected(field)}");
        }

        switch (field.Kind)
        {
            case SpecKind.Path when string.Equals(text, field.Keyword, StringComparison.Ordinal):
                return text;
            case SpecKind.Path when text.Length > 0 && text.Length <= field.MaxLength:
                return folder is null ? text : Path.Combine(folder, text);
            case SpecKind.Text or SpecKind.Path:
                return text.Length <= field.MaxLength ? text : Wrong(node, path, $"{text.Length} characters, at most {field.MaxLength}");
            case SpecKind.Bool when node.Plain && text is "true" or "false":
                return text is "true";
            case SpecKind.Number when node.Plain
                && long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long number) && number >= field.Min
                && number <= field.Max:
                return number;
            case SpecKind.Size when SpecText.TryParseSize(text, out ByteSize bytes):
                return bytes;
            case SpecKind.Portion when MemoryPortion.TryParse(text, out MemoryPortion portion):
                return portion;
            case SpecKind.Set when SpecText.TryParseSet(text, out IReadOnlyList<int> set):
                return set;
            case SpecKind.Percent when SpecText.TryParsePercent(text, out int percent) && percent >= field.Min && percent <= field.Max:
                return percent;
            case SpecKind.Word when field.Words.Contains(text, StringComparer.Ordinal):
                return text;
            case SpecKind.Word when !IsFull && Names.Nearest(text, field.Words) is { } near:
                return Wrong(node, path, $"\"{Clip(text, LongestValue)}\", expected {Expected(field)}; did you mean {near}?");
            default:
                return Wrong(node, path, $"\"{Clip(text, LongestValue)}\", expected {Expected(field)}");
        }
    }

    private static object Defaults(SpecField field)
    {
        object defaults = field.Create!();
        return field.Complete is { } complete ? complete(defaults, new HashSet<string>(StringComparer.Ordinal)) : defaults;
    }

    private List<object>? ReadList(SpecNode node, SpecField field, string path)
    {
        if (node.List is null)
        {
            Add(node, path, "expected a list");
            return null;
        }

        if (node.List.Count > field.Max)
        {
            _tooMany = true;
            Add(node, path, $"{node.List.Count} entries, at most {field.Max}");
            return null;
        }

        List<object> items = [];
        for (int i = 0; i < node.List.Count; i++)
        {
            string itemPath = $"{path}[{i}]";
            object? item = field.Item is { } type ? ReadValue(node.List[i], type, itemPath, [])
                : field.Kinds is { } kinds ? ReadKind(node.List[i], kinds(), itemPath)
                : ReadObject(node.List[i], field, itemPath);
            if (item is not null)
            {
                items.Add(item);
            }
        }

        return items;
    }

    /// <summary>An object whose fields are those of the kind that it names.</summary>
    private object? ReadKind(SpecNode node, SpecField[] kinds, string path)
    {
        _places[path] = node;
        if (node.Map is null)
        {
            return Wrong(node, path, "expected fields (name: value)");
        }

        SpecNode? named = node.Map.FirstOrDefault(m => m.Key.Scalar is "kind").Value;
        if (Array.Find(kinds, k => string.Equals(k.Name, named?.Scalar, StringComparison.Ordinal)) is { } type)
        {
            return ReadObject(node, type, path);
        }

        string expected = "expected one of " + string.Join(", ", kinds.Select(k => k.Name));
        return named is null ? Wrong(node, path + ".kind", "is missing, " + expected)
            : Wrong(named, path + ".kind", $"\"{Clip(named.Scalar ?? "?", LongestValue)}\", {expected}");
    }

    private object? Wrong(SpecNode node, string path, string message)
    {
        Add(node, path, message);
        return null;
    }

    private void Add(SpecNode node, string path, string message)
    {
        if (IsFull)
        {
            _more++;
            return;
        }

        _problems.Add(new SpecProblem(path, message, file, node.Line, node.Column));
    }

    private static string Expected(SpecField field) => field.Kind switch
    {
        SpecKind.Bool => "true or false",
        SpecKind.Number => $"a number from {field.Min} to {field.Max}",
        SpecKind.Size => "a size such as 512MiB or 1.5GiB, a whole number of bytes",
        SpecKind.Portion => "a size such as 512MiB, or a percentage such as 25%",
        SpecKind.Percent => $"a percentage from {field.Min}% to {field.Max}%",
        SpecKind.Set => "numbers such as 0-3,8",
        SpecKind.Word => "one of " + string.Join(", ", field.Words),
        _ => "a text",
    };
}
