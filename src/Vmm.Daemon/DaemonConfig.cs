using System.Globalization;
using Vmm.Daemon.Access;
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
        YamlStream yaml = new();
        try
        {
            yaml.Load(new StringReader(text));
        }
        catch (YamlException e)
        {
            problem = $"{path}:{e.Start.Line}: not valid YAML: {e.Message}";
            return null;
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentException)
        {
            problem = $"{path}: not valid YAML"; // YamlDotNet 16 lets these escape on some malformed documents
            return null;
        }

        problem = "";
        if (yaml.Documents.Count == 0)
        {
            return options; // only comments
        }

        if (yaml.Documents.Count > 1 || yaml.Documents[0].RootNode is not YamlMappingNode root)
        {
            problem = $"{path}: expected settings (name: value)";
            return null;
        }

        foreach ((YamlNode key, YamlNode value) in root.Children)
        {
            string name = (key as YamlScalarNode)?.Value ?? "?";
            DaemonOptions? next;
            if (name is "principals")
            {
                next = Principals(value, out IReadOnlyList<CertificatePrincipal> known, out problem)
                    ? options with { Certificates = known }
                    : null;
            }
            else if (name is "storage" or "blockDevices" && value is YamlSequenceNode { Children.Count: > 0 } several)
            {
                next = options;
                foreach (YamlNode one in several.Children)
                {
                    string folder = (one as YamlScalarNode)?.Value ?? "";
                    next = folder.StartsWith('/') ? next?.With(name, folder, out problem) : Relative(out problem);
                }
            }
            else
            {
                string text_ = (value as YamlScalarNode)?.Value ?? "";
                next = text_.Length == 0 ? Nothing(out problem) : options.With(name, text_, out problem);
            }

            if (next is null)
            {
                long line = problem.Length > 0 ? value.Start.Line : key.Start.Line;
                problem =
                    $"{path}:{line.ToString(CultureInfo.InvariantCulture)}: {name}: {(problem.Length > 0 ? problem : "unknown setting")}";
                return null;
            }

            options = next;
        }

        return options;

        static DaemonOptions? Relative(out string problem)
        {
            problem = "expected whole paths of folders";
            return null;
        }

        static DaemonOptions? Nothing(out string problem)
        {
            problem = "is empty";
            return null;
        }
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
                    "expected a list of {name: …, role: viewer, operator or admin, certificate: \"sha256:…\" (64 hexadecimal digits)}";
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
