using Vmm.Contracts.Rest;
using Vmm.Daemon.Security;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace Vmm.Daemon;

/// <summary>The configuration file: YAML, the keys of <see cref="DaemonOptions.Keys"/>, and <c>principals</c>, a list of <c>{certificate, role, name}</c>.</summary>
internal static class ConfigFile
{
    /// <summary>Reads the text of one.</summary>
    /// <exception cref="FormatException">It is not sound; the message has the file and the line.</exception>
    internal static DaemonOptions Read(string text, string file)
    {
        YamlStream stream = [];
        try
        {
            using StringReader reader = new(text);
            stream.Load(reader);
        }
        catch (YamlException e)
        {
            throw new FormatException($"{file}:{e.Start.Line}: {e.Message}", e);
        }

        DaemonOptions options = new();
        if (stream.Documents.Count == 0)
        {
            return options;
        }

        foreach ((YamlNode keyNode, YamlNode value) in Mapping(stream.Documents[0].RootNode, file))
        {
            string key = Text(keyNode, file);
            if (string.Equals(key, "principals", StringComparison.Ordinal))
            {
                options = options with { Principals = Principals(value, file) };
            }
            else if (DaemonOptions.Keys.TryGetValue(key, out Func<DaemonOptions, string, DaemonOptions>? set))
            {
                string word = Text(value, file);
                try
                {
                    options = set(options, word.Length > 0 ? word : throw new FormatException("needs a value"));
                }
                catch (Exception e) when (e is FormatException or ArgumentException)
                {
                    throw Wrong(file, value, $"{key}: {e.Message}");
                }
            }
            else
            {
                throw Wrong(file, keyNode, $"unknown key {key}; known: principals, {string.Join(", ", DaemonOptions.Keys.Keys)}");
            }
        }

        return options;
    }

    private static List<CertificateRule> Principals(YamlNode node, string file)
    {
        List<CertificateRule> rules = [];
        foreach (YamlNode item in node is YamlSequenceNode list ? list.Children : throw Wrong(file, node, "principals: expected a list"))
        {
            string? certificate = null, name = null;
            Role? role = null;
            foreach ((YamlNode keyNode, YamlNode value) in Mapping(item, file))
            {
                string word = Text(value, file);
                switch (Text(keyNode, file))
                {
                    case "certificate":
                        certificate = IsSubject(word) ? word : throw Wrong(file, value, "certificate: expected sha256:HEX (64 digits), cn:NAME or ou:NAME");
                        break;
                    case "role":
                        role = word switch { "viewer" => Role.Viewer, "operator" => Role.Operator, "admin" => Role.Admin, _ => throw Wrong(file, value, "role: expected viewer, operator or admin") };
                        break;
                    case "name":
                        name = word;
                        break;
                    case var other:
                        throw Wrong(file, keyNode, $"unknown key {other}; known: certificate, role, name");
                }
            }

            rules.Add(certificate is not null && role is { } given ? new CertificateRule(certificate, given, name ?? certificate) : throw Wrong(file, item, "a principal needs certificate and role"));
        }

        return rules;
    }

    private static bool IsSubject(string word) => word.Split(':', 2) is [var kind, { Length: > 0 } value] && kind switch
    {
        "sha256" => value.Replace(":", "", StringComparison.Ordinal) is { Length: 64 } hex && hex.All(char.IsAsciiHexDigit),
        "cn" or "ou" => true,
        _ => false,
    };

    private static IEnumerable<KeyValuePair<YamlNode, YamlNode>> Mapping(YamlNode node, string file) => node is YamlMappingNode mapping ? mapping.Children : throw Wrong(file, node, "expected keys with values");

    private static string Text(YamlNode node, string file) => node is YamlScalarNode { Value: { } value } ? value : throw Wrong(file, node, "expected one value");

    private static FormatException Wrong(string file, YamlNode node, string what) => new($"{file}:{node.Start.Line}: {what}");
}
