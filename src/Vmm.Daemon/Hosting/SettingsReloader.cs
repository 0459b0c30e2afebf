using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Logging;
using Vmm.Daemon.Pressure;

namespace Vmm.Daemon.Hosting;

/// <summary>
/// Opens the log file anew and takes over what can change while the daemon runs: the log level, the balancer's mode, whether the pressure
/// loop takes memory, and who the client certificates are.
/// </summary>
internal sealed class SettingsReloader(
    DaemonOptions options, LogControl level, BalancerService balancer, PressureService pressure, Gatekeeper gate, LogFile file,
    ILogger<SettingsReloader> log)
{
    /// <param name="next">The settings as they are now; null when they are not sound.</param>
    /// <param name="problem">Why they are not.</param>
    internal void Reload(DaemonOptions? next, string problem)
    {
        if (file.Reopen() is { } failed)
        {
            DaemonLog.LogNotReopened(log, options.Log.File!, failed);
        }

        if (next is null)
        {
            DaemonLog.NotReread(log, problem);
            return;
        }

        level.Set(next.Log.Level);
        balancer.Set(new BalancerWish(next.Balancer.Enabled, next.Balancer.DryRun));
        // Without a word about it the ratio decides, and that is the one of the daemon's start.
        pressure.Set(next.Pressure.Enabled ?? options.PressureEnabled);
        gate.Replace(next.Certificates);
        DaemonOptions same = options with
        {
            Log = options.Log with { Level = next.Log.Level },
            Balancer = options.Balancer with { Enabled = next.Balancer.Enabled, DryRun = next.Balancer.DryRun },
            Pressure = options.Pressure with { Enabled = next.Pressure.Enabled },
            Certificates = next.Certificates,
        };
        DaemonLog.Reread(log, same == next ? "" : "; what else has changed waits for the daemon's next start");
    }
}
