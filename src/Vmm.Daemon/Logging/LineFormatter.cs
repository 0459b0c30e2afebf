using System.Globalization;
using Serilog.Events;
using Serilog.Formatting;

namespace Vmm.Daemon.Logging;

/// <summary>
/// Lines for people: time and level, or for the journal, which has the time, the priority (sd-daemon(3)). An event is one line, whatever a
/// client put into its names and paths; an exception is more lines, indented.
/// </summary>
internal sealed class LineFormatter(bool journal) : ITextFormatter
{
    /// <inheritdoc/>
    public void Format(LogEvent logEvent, TextWriter output)
    {
        string head = journal
            ? Priority(logEvent.Level)
            : logEvent.Timestamp.ToString("yyyy-MM-dd HH:mm:ss.fff", CultureInfo.InvariantCulture) + Word(logEvent.Level);
        output.Write(head);
        if (logEvent.Properties.TryGetValue("SourceContext", out LogEventPropertyValue? value)
            && value is ScalarValue { Value: string source })
        {
            output.Write(source.AsSpan(source.LastIndexOf('.') + 1));
            output.Write(": ");
        }

        using StringWriter message = new(CultureInfo.InvariantCulture);
        foreach (Serilog.Parsing.MessageTemplateToken token in logEvent.MessageTemplate.Tokens)
        {
            // Text as it is, not in quotation marks.
            if (token is Serilog.Parsing.PropertyToken property
                && logEvent.Properties.TryGetValue(property.PropertyName, out LogEventPropertyValue? part)
                && part is ScalarValue { Value: string text })
            {
                message.Write(text);
            }
            else
            {
                token.Render(logEvent.Properties, message, CultureInfo.InvariantCulture);
            }
        }

        WriteLine(output, message.ToString());
        foreach (string line in logEvent.Exception?.ToString().Split('\n') ?? [])
        {
            output.Write(journal ? head : "");
            output.Write("    ");
            WriteLine(output, line.TrimEnd());
        }
    }

    private static void WriteLine(TextWriter output, string text)
    {
        foreach (char c in text)
        {
            output.Write(char.IsControl(c) || c is '\u2028' or '\u2029' ? ' ' : c);
        }

        output.Write('\n');
    }

    private static string Priority(LogEventLevel level) => level switch
    {
        LogEventLevel.Fatal => "<2>",
        LogEventLevel.Error => "<3>",
        LogEventLevel.Warning => "<4>",
        LogEventLevel.Information => "<6>",
        _ => "<7>",
    };

    private static string Word(LogEventLevel level) => level switch
    {
        LogEventLevel.Fatal => " fatal ",
        LogEventLevel.Error => " error ",
        LogEventLevel.Warning => " warning ",
        LogEventLevel.Information => " info ",
        _ => " debug ",
    };
}
