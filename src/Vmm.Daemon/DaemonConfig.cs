using System.Globalization;
using Vmm.Daemon.Access;
using Vmm.Daemon.Moves;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace Vmm.Daemon;

/// <summary>
/// The configuration file: YAML with the settings of the command line and the known client certificates. An unknown key is an error, with
/// its line.
/// </summary>
public static class DaemonConfig
{
    /// <summary>Read when the command line names no other.</summary>
    public const string DefaultPath = "/etc/vmm/vmmd.yaml";

    /// <summary>Applies a file.</summary>
    /// <returns>The options, or null with what is wrong.</returns>
    public static DaemonOptions? Read(DaemonOptions options, string path, out string problem)
    {
        try
        {
            return Apply(options, path, File.ReadAllText(path), out problem);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            problem = $"{path} cannot be read: {e.Message}";
            return null;
        }
    }

    /// <summary>Applies the text of a file; <paramref name="path"/> is what messages call it.</summary>
    public static DaemonOptions? Apply(DaemonOptions options, string path, string text, out string problem)
    {
        if (!TryParse(path, text, out YamlMappingNode settings, out problem))
        {
            return null;
        }

        foreach ((YamlNode key, YamlNode value) in settings.Children)
        {
            string name = (key as YamlScalarNode)?.Value ?? "?";
            if (With(options, name, value, out problem) is not { } next)
            {
                long line = problem.Length > 0 ? value.Start.Line : key.Start.Line;
                problem =
                    $"{path}:{line.ToString(CultureInfo.InvariantCulture)}: {name}: {(problem.Length > 0 ? problem : "unknown setting")}";
                return null;
            }

            options = next;
        }

        return options;
    }

    /// <summary>The settings of a file; none of one that has only comments.</summary>
    private static bool TryParse(string path, string text, out YamlMappingNode settings, out string problem)
    {
        settings = [];
        YamlStream yaml = new();
        try
        {
            yaml.Load(new StringReader(text));
        }
        catch (YamlException e)
        {
            problem = $"{path}:{e.Start.Line}: not valid YAML: {e.Message}";
            return false;
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentException)
        {
            problem = $"{path}: not valid YAML"; // YamlDotNet 16 lets these escape on some malformed documents
            return false;
        }

        problem = "";
        if (yaml.Documents.Count == 0)
        {
            return true;
        }

        if (yaml.Documents.Count > 1 || yaml.Documents[0].RootNode is not YamlMappingNode root)
        {
            problem = $"{path}: expected settings (name: value)";
            return false;
        }

        settings = root;
        return true;
    }

    /// <summary>With one setting of the file changed; null for an unknown one (no problem) or a value that makes no sense (a
    /// problem).</summary>
    private static DaemonOptions? With(DaemonOptions options, string name, YamlNode value, out string problem)
    {
        if (name is "principals")
        {
            return Principals(value, out IReadOnlyList<CertificatePrincipal> known, out problem)
                ? options with { Certificates = known }
                : null;
        }

        if (name is "peers")
        {
            return WithPeers(options, value, out problem);
        }

        if (name is "storage" or "blockDevices" or "nbdServers" or "rbdPools" && value is YamlSequenceNode { Children.Count: > 0 } folders)
        {
            return WithFolders(options, name, folders, out problem);
        }

        if (name is "memory" && value is YamlMappingNode memory)
        {
            return WithMemory(options, memory, out problem);
        }

        string text = (value as YamlScalarNode)?.Value ?? "";
        if (text.Length > 0)
        {
            return options.With(name, text, out problem);
        }

        problem = "is empty";
        return null;
    }

    /// <summary>The settings of memory, which are a group of their own.</summary>
    private static DaemonOptions? WithMemory(DaemonOptions options, YamlMappingNode memory, out string problem)
    {
        problem = "";
        foreach ((YamlNode key, YamlNode value) in memory.Children)
        {
            string? name = (key as YamlScalarNode)?.Value;
            string? setting = name switch
            {
                "overcommit" => "memoryOvercommit",
                "pressure" => "memoryPressure",
                "reserve" => "memoryReserve",
                _ => null,
            };
            if (setting is null)
            {
                problem = $"{key} is no setting of it; known here: overcommit, pressure, reserve";
                return null;
            }

            if (options.With(setting, (value as YamlScalarNode)?.Value ?? "", out problem) is not { } next)
            {
                problem = $"{name}: {problem}";
                return null;
            }

            options = next;
        }

        return options;
    }

    /// <summary>How this vmmd and those of other hosts know each other: three files.</summary>
    private static DaemonOptions? WithPeers(DaemonOptions options, YamlNode node, out string problem)
    {
        Dictionary<string, string> files = (node as YamlMappingNode)?.Children.ToDictionary(
            f => f.Key.ToString(), f => f.Value.ToString(), StringComparer.Ordinal) ?? [];
        bool isSound = files.Count == 3 && new[] { "certificate", "key", "ca" }.All(
            file => files.GetValueOrDefault(file, "") is { Length: > 0 } path && !path.Contains('\0', StringComparison.Ordinal));
        problem = isSound ? "" : "expected {certificate: FILE, key: FILE, ca: FILE}";
        return isSound
            ? options with
            {
                Peers = new PeerOptions(
                    Path.GetFullPath(files["certificate"]), Path.GetFullPath(files["key"]), Path.GetFullPath(files["ca"])),
            }
            : null;
    }

    private static DaemonOptions? WithFolders(DaemonOptions options, string name, YamlSequenceNode folders, out string problem)
    {
        problem = "";
        foreach (YamlNode one in folders.Children)
        {
            string folder = (one as YamlScalarNode)?.Value ?? "";
            if (name is "storage" or "blockDevices" && !folder.StartsWith('/'))
            {
                problem = "expected whole paths of folders";
                return null;
            }

            if (options.With(name, folder, out problem) is not { } next)
            {
                return null;
            }

            options = next;
        }

        return options;
    }

    private static bool Principals(YamlNode node, out IReadOnlyList<CertificatePrincipal> known, out string problem)
    {
        List<CertificatePrincipal> list = [];
        known = list;
        foreach (YamlNode item in (node as YamlSequenceNode)?.Children ?? [])
        {
            Dictionary<string, string> fields = (item as YamlMappingNode)?.Children.ToDictionary(
                f => f.Key.ToString(), f => f.Value.ToString(), StringComparer.Ordinal) ?? [];
            string fingerprint = fields.GetValueOrDefault("certificate", "").Replace(":", "", StringComparison.Ordinal).ToLowerInvariant();
            fingerprint = fingerprint.StartsWith("sha256", StringComparison.Ordinal) ? fingerprint[6..] : fingerprint;
            if (fields.Count != 3 || fields.GetValueOrDefault("name", "").Length == 0 || fingerprint.Length != 64
                || !fingerprint.All(char.IsAsciiHexDigit) || !TryRole(fields.GetValueOrDefault("role", ""), out Role role))
            {
                problem =
                    "expected a list of {name: …, role: peer, viewer, operator or admin, "
                        + "certificate: \"sha256:…\" (64 hexadecimal digits)}";
                return false;
            }

            list.Add(new CertificatePrincipal(fields["name"], role, fingerprint));
        }

        problem = list.Count > 0 ? "" : "expected a list of principals";
        return list.Count > 0;
    }

    /// <summary>The role of a word.</summary>
    internal static bool TryRole(string word, out Role role)
    {
        foreach (Role candidate in Enum.GetValues<Role>())
        {
            if (string.Equals(candidate.ToString().ToLowerInvariant(), word, StringComparison.Ordinal))
            {
                role = candidate;
                return true;
            }
        }

        role = default;
        return false;
    }
}
