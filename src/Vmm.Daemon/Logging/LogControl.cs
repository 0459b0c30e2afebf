using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Logging;

/// <summary>
/// The log level while the daemon runs: who listens to events hears of a change, and the log itself says so at the more talkative of both
/// levels.
/// </summary>
internal sealed class LogControl(LogLevelSwitch levels, EventHub events, ILogger log)
{
    private readonly Lock _gate = new();

    internal LogSettings Settings => new(LogOptions.Word(levels.Level));

    internal LogSettings Set(LogLevel level)
    {
        lock (_gate)
        {
            LogLevel before = levels.Level;
            if (before != level)
            {
                string was = LogOptions.Word(before), now = LogOptions.Word(level);
                levels.Level = level < before ? level : before;
                DaemonLog.LogLevelSet(log, now, was);
                levels.Level = level;
                events.Publish("log-level", "", message: $"{now} (was {was})");
            }

            return Settings;
        }
    }
}
