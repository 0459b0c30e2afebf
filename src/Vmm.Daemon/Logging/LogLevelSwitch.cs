using Microsoft.Extensions.Logging;
using Serilog.Core;
using Serilog.Events;

namespace Vmm.Daemon.Logging;

/// <summary>The least severe that is logged, changed while the daemon runs.</summary>
internal sealed class LogLevelSwitch
{
    private volatile LogLevel _level;

    internal LogLevelSwitch(LogLevel level) => Level = level;

    /// <summary>For the daemon's own lines.</summary>
    internal LoggingLevelSwitch Own { get; } = new();

    /// <summary>For those of the web framework, which tells every request: never below warnings.</summary>
    internal LoggingLevelSwitch Framework { get; } = new();

    internal LogLevel Level
    {
        get => _level;
        set
        {
            _level = value;
            Own.MinimumLevel = Of(value);
            Framework.MinimumLevel = (LogEventLevel)Math.Max((int)LogEventLevel.Warning, (int)Own.MinimumLevel);
        }
    }

    private static LogEventLevel Of(LogLevel level) => level switch
    {
        LogLevel.Debug or LogLevel.Trace => LogEventLevel.Debug,
        LogLevel.Information => LogEventLevel.Information,
        LogLevel.Warning => LogEventLevel.Warning,
        LogLevel.Error => LogEventLevel.Error,
        _ => LogEventLevel.Fatal,
    };
}
