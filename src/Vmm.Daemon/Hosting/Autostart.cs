using Microsoft.Extensions.Hosting;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Hosting;

/// <summary>
/// Starts the VMs that run from the boot of the host on, once. The run folder is emptied by every boot (it lies on a tmpfs): the mark in it says that this
/// boot's VMs were started.
/// </summary>
internal sealed class Autostart(DaemonOptions options, VmManager vms) : IHostedService
{
    /// <inheritdoc/>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        string mark = Path.Combine(options.RunFolder, "autostarted");
        if (!File.Exists(mark))
        {
            await vms.AutostartAsync(cancellationToken).ConfigureAwait(false);
            await File.WriteAllTextAsync(mark, "", cancellationToken).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}
