using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Hosting;

/// <summary>
/// Starts the VMs that run from the boot of the host on, once. The run folder is emptied by every boot (it lies on a tmpfs): the mark in it
/// says that this boot's VMs were started. This goes on in the background: VMs with much memory take minutes, and the daemon is of use
/// before.
/// </summary>
internal sealed class Autostart(DaemonOptions options, VmManager vms, ILogger<Autostart> log) : BackgroundService
{
    private readonly string _mark = Path.Combine(options.RunFolder, "autostarted");

    /// <inheritdoc/>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (File.Exists(_mark))
        {
            return;
        }

        await Task.Yield();
        await vms.AutostartAsync(stoppingToken).ConfigureAwait(false);
        if (stoppingToken.IsCancellationRequested)
        {
            return; // without the mark the next daemon goes on with those that do not run yet
        }

        try
        {
            await File.WriteAllTextAsync(_mark, "", CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            DaemonLog.MarkUnwritten(log, _mark, cause.Message);
        }
    }
}
