using System.Globalization;
using System.Text;
using Vmm.Contracts;

namespace Vmm.Daemon.Metrics;

/// <summary>Writes the text format of Prometheus, version 0.0.4: one family after the other, each with its help and type.</summary>
internal sealed class MetricsText
{
    /// <summary>The media type of the text.</summary>
    internal const string ContentType = "text/plain; version=0.0.4; charset=utf-8";

    private readonly StringBuilder _text = new();

    /// <summary>Begins a family; its samples follow.</summary>
    internal void Family(string name, string type, string help) =>
        _text.Append("# HELP ").Append(name).Append(' ')
            .Append(help.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal)).Append("\n# TYPE ")
            .Append(name).Append(' ').Append(type).Append('\n');

    /// <summary>One sample.</summary>
    internal void Sample(string name, double value, params ReadOnlySpan<(string Name, string Value)> labels)
    {
        _text.Append(name);
        for (int i = 0; i < labels.Length; i++)
        {
            _text.Append(i == 0 ? '{' : ',').Append(labels[i].Name).Append("=\"");
            foreach (char c in SafeText.Lines(labels[i].Value))
            {
                _ = c switch
                {
                    '\\' => _text.Append("\\\\"),
                    '"' => _text.Append("\\\""),
                    '\n' => _text.Append("\\n"),
                    _ => _text.Append(c),
                };
            }

            _text.Append(i == labels.Length - 1 ? "\"}" : "\"");
        }

        _text.Append(' ').Append(value.ToString("R", CultureInfo.InvariantCulture)).Append('\n');
    }

    /// <inheritdoc/>
    public override string ToString() => _text.ToString();
}
