using Vmm.Daemon.Vms;
using Vmm.HostNet;

namespace Vmm.Daemon.Workers;

/// <summary>Removes what network devices of a VM leave on the host that does not go by itself: macvtap interfaces.</summary>
internal static class LeftNets
{
    private const int Tries = 5;

    /// <summary>The VM has no worker.</summary>
    internal static void Sweep(string vmId) => Macvtap.Sweep(TapCounters.AliasOf(vmId), _ => false);

    /// <summary>A device of it is gone; the worker closes what was behind it a moment later.</summary>
    internal static async Task SweepAsync(IWorker worker)
    {
        for (int tries = 0; tries < Tries && !worker.Ended.IsCompleted; tries++)
        {
            await Task.Delay(TimeSpan.FromSeconds(0.5 * (1 << tries))).ConfigureAwait(false);
            Macvtap.Sweep(TapCounters.AliasOf(worker.VmId), device => OpenFiles.MayHold(worker.ProcessId, device));
        }
    }
}
