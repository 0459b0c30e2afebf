using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Balancer;
using Vmm.Daemon.Logging;

namespace Vmm.Daemon.Hosting;

/// <summary>
/// Opens the log file anew and takes over what can change while the daemon runs: the log level, the balancer's mode, and who the client
/// certificates are.
/// </summary>
internal sealed class SettingsReloader(
    DaemonOptions options, LogControl level, BalancerService balancer, Gatekeeper gate, LogFile file, ILogger<SettingsReloader> log)
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
        gate.Replace(next.Certificates);
        DaemonOptions same = options with
        {
            Log = options.Log with { Level = next.Log.Level },
            Balancer = options.Balancer with { Enabled = next.Balancer.Enabled, DryRun = next.Balancer.DryRun },
            Certificates = next.Certificates,
        };
        DaemonLog.Reread(log, same == next ? "" : "; what else has changed waits for the daemon's next start");
    }
}
