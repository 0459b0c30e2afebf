using System.Globalization;
using System.Text;

namespace Vmm.Cli.Generate;

/// <summary>Writes one manual page in the man macros, man(7): text goes in as it is and comes out escaped.</summary>
internal sealed class RoffPage
{
    private readonly StringBuilder _text = new();
    private bool _afterHeading;

    /// <param name="name">Name of the page, e.g. <c>vmmctl-vm</c>.</param>
    /// <param name="section">Section of the manual.</param>
    /// <param name="date">Date of the page.</param>
    internal RoffPage(string name, int section, DateTimeOffset date)
    {
        string version = typeof(RoffPage).Assembly.GetName().Version?.ToString(3) ?? "0";
        _text.Append(".\\\" Made by: vmmctl generate man\n");
        _text.Append(
            CultureInfo.InvariantCulture, $".TH {name.ToUpperInvariant()} {section} \"{date:yyyy-MM-dd}\" \"vmm {version}\" \"Vmm\"\n");
        _text.Append(".ad l\n"); // a list of options is one long word: a line without a space cannot be stretched to the margin
    }

    internal RoffPage Section(string title) => Macro($".SH {Quote(title.ToUpperInvariant())}");

    internal RoffPage Subsection(string title) => Macro($".SS {Quote(title)}");

    /// <summary>A tagged paragraph; the tag is bold.</summary>
    internal RoffPage Tagged(string tag, string text) => Macro(".TP").Macro(".B " + Quote(tag)).Text(text);

    /// <summary>A command line, bold name first.</summary>
    internal RoffPage Synopsis(string command, string rest) =>
        Macro(".TP").Macro($".BR {Quote(command)} {Quote(rest.Length == 0 ? "" : " " + rest)}");

    /// <summary>Paragraphs; indented lines are examples and stay as they are.</summary>
    internal RoffPage Text(string text)
    {
        bool literal = false, paragraph = false;
        foreach (string line in text.Split('\n'))
        {
            bool indented = line.StartsWith("  ", StringComparison.Ordinal);
            if (indented != literal)
            {
                // Behind a heading there is no paragraph to end.
                Macro(!indented ? ".EE" : _afterHeading ? ".EX" : ".PP\n.EX");
                literal = indented;
                paragraph = !indented;
            }

            if (line.Length == 0)
            {
                paragraph = !literal;
                continue;
            }

            if (paragraph && !literal)
            {
                Macro(".PP");
            }

            paragraph = false;
            _text.Append(Escape(line)).Append('\n');
            _afterHeading = false;
        }

        return literal ? Macro(".EE") : this;
    }

    internal RoffPage Paragraph(string text) => Macro(".PP").Text(text);

    private RoffPage Macro(string line)
    {
        _text.Append(line).Append('\n');
        _afterHeading = line.StartsWith(".S", StringComparison.Ordinal);
        return this;
    }

    /// <inheritdoc/>
    public override string ToString() => _text.ToString();

    /// <summary>An argument of a macro: no quotes of its own, never empty.</summary>
    private static string Quote(string text) => "\"" + Escape(text).Replace("\"", "\\(dq", StringComparison.Ordinal) + "\"";

    /// <summary>
    /// Backslashes, hyphens that are to be copied, quotes that would be made pretty, and a first character that would be a request.
    /// </summary>
    internal static string Escape(string text)
    {
        StringBuilder escaped = new(text.Length + 16);
        bool first = true; // of what is not left out
        char before = ' ';
        foreach (char c in text)
        {
            if (first && c is '.' or '\'')
            {
                escaped.Append("\\&");
            }

            first &= c is < '!' or (>= '\x7F' and <= '\x9F');
            _ = c switch
            {
                '\\' => escaped.Append("\\e"),
                '[' when before == ']' => escaped.Append("\\:["), // where a long list of options may be broken
                '-' => escaped.Append("\\-"),
                '\'' => escaped.Append("\\(aq"),
                '`' => escaped.Append("\\(ga"),
                '^' => escaped.Append("\\(ha"),
                '~' => escaped.Append("\\(ti"),
                < ' ' or (>= '\x7F' and <= '\x9F') => escaped,
                > '\x9F' => escaped.Append(System.Globalization.CultureInfo.InvariantCulture, $"\\[u{(int)c:X4}]"), // troff reads bytes
                _ => escaped.Append(c),
            };
            before = c;
        }

        return escaped.ToString();
    }
}
