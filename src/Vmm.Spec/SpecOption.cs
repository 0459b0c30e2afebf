using System.Globalization;

namespace Vmm.Spec;

/// <summary>
/// A device as an option of the command line: <c>path,ro,queues=2</c>. Which fields it may have, and what they are called there, is in
/// their entries.
/// </summary>
public static class SpecOption
{
    private const string Publish = "publish=";

    /// <summary>
    /// Reads a disk: its path, or the URI of a disk of a server or cluster, then what is not as usual. A path that ends in <c>.qcow2</c> is
    /// a qcow2 image unless the format is said; one that is named like a disk of another program is refused. False, and what is wrong with
    /// which part, for anything else.
    /// </summary>
    public static bool TryParseDisk(string text, out DiskSpec disk, out string problem)
    {
        string[] parts = text.Split(',');
        disk = new DiskSpec { Path = parts[0], Format = FormatOf(parts[0]) };
        problem = parts[0].Length == 0 ? "the path comes first" : "";
        if (RbdUri.Is(parts[0]))
        {
            if (!RbdUri.TryRead(parts[0], out RbdSpec rbd, out string wrong))
            {
                problem = $"{parts[0]}: {wrong}";
                return false;
            }

            disk = new DiskSpec { Path = rbd.Uri, Rbd = rbd };
        }

        if (NbdUri.Is(parts[0]))
        {
            if (!NbdUri.TryRead(parts[0], out NbdSpec nbd, out string wrong))
            {
                problem = $"{parts[0]}: {wrong}";
                return false;
            }

            disk = new DiskSpec { Path = nbd.Uri, Nbd = nbd };
        }

        bool saysFormat = parts.Skip(1).Any(part => part.StartsWith("format=", StringComparison.Ordinal));
        if (problem.Length == 0 && !saysFormat && !disk.IsRemote)
        {
            problem = DiskFormats.Foreign(parts[0]) ?? "";
        }

        return problem.Length == 0 && TryParse(VmFields.Part("disks"), parts.AsSpan(1), ref disk, out problem);
    }

    /// <summary>
    /// Reads a network device: <c>tap=NAME</c>, <c>bridge=NAME</c>, <c>network=NAME</c> or <c>user</c>, and what is not as usual.
    /// <c>publish=PORTS</c>, which belongs to user-mode
    /// networking, may be there several times. False, and what is wrong with which part, for anything else.
    /// </summary>
    public static bool TryParseNet(string text, out NetSpec net, out string problem)
    {
        net = new NetSpec();
        string[] parts = text.Split(',');
        string[] published = [.. parts.Where(IsPublish).Select(part => part[Publish.Length..])];
        if (!TryParse(VmFields.Part("nets"), [.. parts.Where(part => !IsPublish(part))], ref net, out problem))
        {
            return false;
        }

        if (published.Length > 0)
        {
            problem = net.User is null ? Publish + " belongs to user" : "";
            net = net with { User = new UserNetSpec { Publish = published } };
        }

        problem = net.Source.Length == 0 ? "network=NAME, tap=NAME, bridge=NAME, macvtap=NAME or user is missing" : problem;
        return problem.Length == 0;

        static bool IsPublish(string part) => part.StartsWith(Publish, StringComparison.Ordinal);
    }

    /// <summary>
    /// Reads a shared folder: its path, then <c>ro</c> and <c>tag=NAME</c>. False, and what is wrong with which part, for anything else.
    /// </summary>
    public static bool TryParseShare(string text, out ShareSpec share, out string problem)
    {
        string[] parts = text.Split(',');
        share = new ShareSpec { Path = parts[0] };
        problem = parts[0].Length == 0 ? "the path comes first" : "";
        return problem.Length == 0 && TryParse(VmFields.Part("shares"), parts.AsSpan(1), ref share, out problem);
    }

    /// <summary>How the option of a device is written, for help texts: <c>[,ro][,queues=N]…</c>.</summary>
    /// <param name="list"><c>disks</c>, <c>nets</c> or <c>shares</c>.</param>
    public static string Form(string list) =>
        string.Concat(Options(VmFields.Part(list))
            .Where(f => f is { Required: false, Kind: not SpecKind.Object, Name: not ("bridge" or "network" or "macvtap" or "mode") })
            .Select(f => $"[,{f.Option}{Placeholder(f)}]"));

    // A name may decide, since no guest can change it; the content may not.
    private static DiskFormat FormatOf(string path) =>
        path.EndsWith(".qcow2", StringComparison.OrdinalIgnoreCase) ? DiskFormat.Qcow2 : DiskFormat.Raw;

    private static string Placeholder(SpecField field) => field.Kind switch
    {
        SpecKind.Bool or SpecKind.Object => "",
        SpecKind.Number => "=N",
        SpecKind.Word => "=" + string.Join('|', field.Words),
        _ => "=" + char.ToUpperInvariant(field.Option![0]),
    };

    private static IEnumerable<SpecField> Options(SpecField type) => type.Fields.Where(f => f.Option is not null);

    private static bool TryParse<T>(SpecField type, ReadOnlySpan<string> parts, ref T part, out string problem) where T : class
    {
        object owner = part;
        foreach (string text in parts)
        {
            int equals = text.IndexOf('=', StringComparison.Ordinal);
            string key = equals < 0 ? text : text[..equals];
            if (Options(type).FirstOrDefault(f => string.Equals(f.Option, key, StringComparison.Ordinal)) is not { } field)
            {
                string[] known = [.. Options(type).Select(f => f.Option!)];
                problem = $"{text}: " + (Names.Nearest(key, known) is { } near
                    ? $"unknown; did you mean {near}?"
                    : "unknown; known: " + string.Join(", ", known));
                return false;
            }

            if (Value(field, equals < 0 ? null : text[(equals + 1)..], out string expected) is not { } value)
            {
                problem = $"{text}: {expected}";
                return false;
            }

            owner = field.Set(owner, value);
        }

        part = (T)owner;
        problem = "";
        return true;
    }

    private static object? Value(SpecField field, string? text, out string expected)
    {
        expected = field.Kind switch
        {
            SpecKind.Bool or SpecKind.Object => $"{field.Option} takes no value",
            SpecKind.Number => "expected a number",
            SpecKind.Word => "expected " + string.Join(", ", field.Words[..^1]) + " or " + field.Words[^1],
            _ => $"expected {field.Option}=TEXT",
        };
        return field.Kind switch
        {
            SpecKind.Bool => text is null ? true : null,
            SpecKind.Object => text is null ? field.Create!() : null,
            SpecKind.Number => int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? (long)number : null,
            SpecKind.Word => text is not null && field.Words.Contains(text, StringComparer.Ordinal) ? text : null,
            _ => text,
        };
    }
}
