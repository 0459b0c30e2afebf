using Microsoft.Extensions.Hosting;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Hosting;

/// <summary>Looks at the files of all disks now and then. A file system that hangs keeps nobody but its own VM's look waiting.</summary>
internal sealed class DiskFileWatch(VmManager vms) : BackgroundService
{
    private static readonly TimeSpan s_interval = TimeSpan.FromSeconds(10);

    /// <inheritdoc/>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        Dictionary<ManagedVm, Task> looks = [];
        using PeriodicTimer timer = new(s_interval);
        while (await timer.WaitForNextTickAsync(stoppingToken).ConfigureAwait(false))
        {
            foreach (ManagedVm gone in looks.Keys.Except(vms.All).ToList())
            {
                looks.Remove(gone);
            }

            foreach (ManagedVm vm in vms.All)
            {
                if (!looks.TryGetValue(vm, out Task? look) || look.IsCompleted)
                {
                    looks[vm] = Task.Factory.StartNew(
                        vm.DiskFiles.Look, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
                }
            }
        }
    }
}
