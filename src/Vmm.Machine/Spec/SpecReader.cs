using System.Globalization;
using Vmm.Memory;
using YamlDotNet.Core;

namespace Vmm.Machine.Spec;

/// <summary>Reads a spec file and reports everything that is wrong with it at once, each with line, column and field.</summary>
public static class SpecReader
{
    /// <summary>Reads and validates a file. Relative paths inside it are relative to its folder. Whether they exist is not checked.</summary>
    /// <exception cref="SpecException">The file cannot be read or is not a sound spec.</exception>
    public static VmSpec ReadFile(string path)
    {
        string text;
        try
        {
            text = File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            string problem = Directory.Exists(path) ? "is a directory" : e is FileNotFoundException or DirectoryNotFoundException ? "does not exist" : e is UnauthorizedAccessException ? "permission denied" : e.Message;
            throw new SpecException([new SpecProblem("", problem, path)]);
        }

        return Read(text, path, Path.GetDirectoryName(Path.GetFullPath(path)));
    }

    /// <summary>Reads and validates a spec text; <paramref name="file"/> is used in messages, <paramref name="folder"/> resolves relative paths (null leaves them).</summary>
    /// <exception cref="SpecException">Not a sound spec.</exception>
    public static VmSpec Read(string text, string file, string? folder = null)
    {
        Pass pass = new(file);
        Dictionary<string, object> values = pass.ReadObject(ReadRoot(text, file), SpecTable.Root, "");
        VmSpec spec = SpecMapper.Map(values, folder);
        return pass.Sound(spec, SpecValidation.Validate(spec));
    }

    /// <summary>Reads and validates one disk: the fields of an entry of <c>disks</c>.</summary>
    /// <exception cref="SpecException">Not a sound disk.</exception>
    public static DiskSpec ReadDisk(string text, string file, string? folder = null)
    {
        Pass pass = new(file);
        DiskSpec disk = SpecMapper.MapDisk(pass.ReadObject(ReadRoot(text, file), SpecTable.Part("disks"), ""), folder);
        return pass.Sound(disk, DeviceValidation.Check(disk));
    }

    /// <summary>Reads and validates one network device: the fields of an entry of <c>nets</c>.</summary>
    /// <exception cref="SpecException">Not a sound network device.</exception>
    public static NetSpec ReadNet(string text, string file)
    {
        Pass pass = new(file);
        NetSpec net = SpecMapper.MapNet(pass.ReadObject(ReadRoot(text, file), SpecTable.Part("nets"), ""));
        return pass.Sound(net, DeviceValidation.Check(net));
    }

    private static SpecNode ReadRoot(string text, string file)
    {
        SpecNode? root;
        try
        {
            root = SpecNode.ReadDocument(new StringReader(text));
        }
        catch (YamlException e)
        {
            throw new SpecException([new SpecProblem("", "not valid YAML: " + e.Message, file, e.Start.Line, e.Start.Column)]);
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentException)
        {
            // YamlDotNet 16 lets these escape on some malformed documents (found by the mutation test).
            throw new SpecException([new SpecProblem("", "not valid YAML", file)]);
        }

        return root is null || root.Scalar is "" ? throw new SpecException([new SpecProblem("", "is empty", file)]) : root;
    }

    private sealed class Pass(string file)
    {
        private readonly Dictionary<string, SpecNode> _places = new(StringComparer.Ordinal);

        public List<SpecProblem> Problems { get; } = [];

        public Dictionary<string, object> ReadObject(SpecNode node, SpecField type, string path)
        {
            Dictionary<string, object> values = new(StringComparer.Ordinal);
            _places[path] = node;
            if (node.Map is null)
            {
                Add(node, path, "expected fields (name: value)");
                return values;
            }

            HashSet<string> seen = new(StringComparer.Ordinal);
            foreach ((SpecNode key, SpecNode value) in node.Map)
            {
                string name = key.Scalar ?? "?";
                string fieldPath = path.Length > 0 ? $"{path}.{name}" : name;
                SpecField? field = Array.Find(type.Fields, f => string.Equals(f.Name, name, StringComparison.Ordinal));
                if (field is null)
                {
                    string? near = Names.Nearest(name, type.Fields.Select(f => f.Name));
                    Add(key, fieldPath, near is null ? $"unknown field; known here: {string.Join(", ", type.Fields.Select(f => f.Name))}" : $"unknown field; did you mean {near}?");
                }
                else if (!seen.Add(name))
                {
                    Add(key, fieldPath, "given twice");
                }
                else if (ReadValue(value, field, fieldPath) is { } read)
                {
                    values[name] = read;
                }
            }

            foreach (SpecField field in type.Fields)
            {
                if (field.Required && !seen.Contains(field.Name))
                {
                    Add(node, path.Length > 0 ? $"{path}.{field.Name}" : field.Name, "is missing");
                }
            }

            return values;
        }

        /// <summary>The part, unless there is a problem with it.</summary>
        public T Sound<T>(T part, IEnumerable<SpecProblem> validation)
        {
            foreach (SpecProblem problem in validation)
            {
                AddValidation(problem);
            }

            return Problems.Count == 0 ? part : throw new SpecException([.. Problems.OrderBy(p => p.Line).ThenBy(p => p.Column)]);
        }

        /// <summary>A validation problem belongs to its field, or to the nearest parent in the file; one on a field already reported adds nothing.</summary>
        public void AddValidation(SpecProblem problem)
        {
            if (Problems.Exists(p => Covers(p.Path, problem.Path)))
            {
                return;
            }

            string path = problem.Path;
            SpecNode? node;
            while (!_places.TryGetValue(path, out node) && path.Length > 0)
            {
                path = path[..Math.Max(0, path.LastIndexOfAny(['.', '[']))];
            }

            Problems.Add(problem with { File = file, Line = node?.Line ?? 0, Column = node?.Column ?? 0 });
        }

        // A problem of all entries of a list (vnodes[*].memory) follows from one of that field of any of them.
        private static bool Covers(string reported, string path) =>
            string.Equals(reported, path, StringComparison.Ordinal)
            || (path.IndexOf("[*]", StringComparison.Ordinal) is > 0 and int star && reported.StartsWith(path[..(star + 1)], StringComparison.Ordinal) && reported.EndsWith(path[(star + 2)..], StringComparison.Ordinal))
            || path.StartsWith(reported + ".", StringComparison.Ordinal)
            || reported.StartsWith(path + ".", StringComparison.Ordinal)
            || reported.StartsWith(path + "[", StringComparison.Ordinal);

        private object? ReadValue(SpecNode node, SpecField field, string path)
        {
            _places[path] = node;
            switch (field.Kind)
            {
                case SpecKind.Object when field.Switch && node is { Plain: true, Scalar: "true" or "false" }:
                    return node.Scalar is "true" ? new Dictionary<string, object>(StringComparer.Ordinal) : null;
                case SpecKind.Object:
                    return ReadObject(node, field, path);
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
                case SpecKind.Text:
                    return text;
                case SpecKind.Bool when node.Plain && text is "true" or "false":
                    return text is "true";
                case SpecKind.Number when node.Plain && long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long number) && number >= field.Min && number <= field.Max:
                    return (int)number;
                case SpecKind.Size when SpecText.TryParseSize(text, out ByteSize bytes):
                    return bytes;
                case SpecKind.Set when SpecText.TryParseSet(text, out IReadOnlyList<int> set):
                    return set;
                case SpecKind.Percent when SpecText.TryParsePercent(text, out int percent) && percent >= field.Min && percent <= field.Max:
                    return percent;
                case SpecKind.Word when field.Words.Contains(text, StringComparer.Ordinal):
                    return text;
                case SpecKind.Word when Names.Nearest(text, field.Words) is { } near:
                    return Wrong(node, path, $"\"{text}\", expected {Expected(field)}; did you mean {near}?");
                default:
                    return Wrong(node, path, $"\"{text}\", expected {Expected(field)}");
            }
        }

        private List<object>? ReadList(SpecNode node, SpecField field, string path)
        {
            if (node.List is null)
            {
                Add(node, path, "expected a list");
                return null;
            }

            List<object> items = [];
            for (int i = 0; i < node.List.Count; i++)
            {
                string itemPath = $"{path}[{i}]";
                object? item = field.Item is { } type ? ReadValue(node.List[i], type, itemPath) : ReadObject(node.List[i], field, itemPath);
                if (item is not null)
                {
                    items.Add(item);
                }
            }

            return items;
        }

        private object? Wrong(SpecNode node, string path, string message)
        {
            Add(node, path, message);
            return null;
        }

        private void Add(SpecNode node, string path, string message) => Problems.Add(new SpecProblem(path, message, file, node.Line, node.Column));

        private static string Expected(SpecField field) => field.Kind switch
        {
            SpecKind.Bool => "true or false",
            SpecKind.Number => $"a number from {field.Min} to {field.Max}",
            SpecKind.Size => "a size such as 512MiB or 2GiB",
            SpecKind.Percent => $"a percentage from {field.Min}% to {field.Max}%",
            SpecKind.Set => "numbers such as 0-3,8",
            SpecKind.Word => "one of " + string.Join(", ", field.Words),
            _ => "a text",
        };
    }
}
