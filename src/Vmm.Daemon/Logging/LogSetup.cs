using Microsoft.Extensions.Logging;
using Serilog;
using Serilog.Core;
using Serilog.Events;
using Serilog.Formatting;
using Serilog.Formatting.Compact;

namespace Vmm.Daemon.Logging;

/// <summary>
/// Serilog behind the daemon's loggers, as the options say. What is logged within a request carries its number and who sent it.
/// </summary>
internal static class LogSetup
{
    /// <summary>Makes the logger; whoever disposes it writes out what is left.</summary>
    /// <param name="options">What is logged, and where.</param>
    /// <param name="output">Where lines go instead of standard error; for tests.</param>
    /// <param name="levels">Changes the level later; null: it stays as the options say.</param>
    /// <param name="file">The file of the options, kept by the caller to open it anew; null: opened here.</param>
    /// <exception cref="IOException">The file cannot be written.</exception>
    /// <exception cref="UnauthorizedAccessException">The file cannot be written.</exception>
    internal static Logger Create(LogOptions options, TextWriter? output = null, LogLevelSwitch? levels = null, LogFile? file = null)
    {
        levels ??= new LogLevelSwitch(options.Level);
        // systemd sets it for a service whose output goes to the journal.
        bool journal = output is null && Environment.GetEnvironmentVariable("JOURNAL_STREAM") is not null;
        LoggerConfiguration configuration = new LoggerConfiguration()
            .MinimumLevel.ControlledBy(levels.Own)
            .MinimumLevel.Override("Microsoft", levels.Framework)
            .Enrich.FromLogContext();
        ITextFormatter console = Formatter(options.Format, journal);
        configuration = output is null
            ? configuration.WriteTo.Console(console, standardErrorFromLevel: LogEventLevel.Verbose)
            : configuration.WriteTo.Sink(new WriterSink(console, output));
        configuration = configuration.WriteTo.Sink(file ?? new LogFile(options));
        return configuration.CreateLogger();
    }

    internal static ITextFormatter Formatter(LogFormat format, bool journal) =>
        format == LogFormat.Json ? new RenderedCompactJsonFormatter() : new LineFormatter(journal);

    private sealed class WriterSink(ITextFormatter formatter, TextWriter output) : ILogEventSink
    {
        public void Emit(LogEvent logEvent)
        {
            lock (output)
            {
                formatter.Format(logEvent, output);
            }
        }
    }
}
