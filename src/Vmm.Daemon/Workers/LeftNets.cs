using Vmm.Daemon.Vms;
using Vmm.HostNet;

namespace Vmm.Daemon.Workers;

/// <summary>
/// What network devices of a VM leave on the host when they go, or it does: macvtap interfaces, and vmmd's own hold on a passt.
/// </summary>
internal static class LeftNets
{
    private const int Tries = 5;

    /// <summary>The VM has no worker.</summary>
    internal static void Sweep(string vmId) => Macvtap.Sweep(TapCounters.AliasOf(vmId), _ => false);

    /// <summary>A worker is gone.</summary>
    /// <param name="nets">Its user-mode networks.</param>
    /// <param name="vmId">The VM that was its; null: another worker has it now.</param>
    internal static void OnEnded(UserNetStarts nets, string? vmId)
    {
        nets.Dispose();
        if (vmId is not null)
        {
            Sweep(vmId);
        }
    }

    /// <summary>A device of it is gone, which may have been any of them.</summary>
    internal static void OnRemoved(UserNetStarts nets, IWorker worker)
    {
        nets.LetGo();
        _ = SweepAsync(worker);
    }

    // The worker closes what was behind a device a moment after it is gone.
    private static async Task SweepAsync(IWorker worker)
    {
        for (int tries = 0; tries < Tries && !worker.Ended.IsCompleted; tries++)
        {
            await Task.Delay(TimeSpan.FromSeconds(0.5 * (1 << tries))).ConfigureAwait(false);
            Macvtap.Sweep(TapCounters.AliasOf(worker.VmId), device => OpenFiles.MayHold(worker.ProcessId, device));
        }
    }
}
