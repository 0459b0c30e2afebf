using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Nouns;

/// <summary><c>vmmctl host balancer</c>: what the balancer sees and decides, and switching it.</summary>
internal static class BalancerView
{
    /// <param name="session">Where to ask.</param>
    /// <param name="mode"><c>on</c>, <c>off</c>, <c>dry-run</c>; null only looks.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal static async Task<int> RunAsync(DaemonSession session, string? mode, CancellationToken cancellation)
    {
        BalancerInfo info = mode switch
        {
            null => await session.Client.BalancerAsync(cancellation).ConfigureAwait(false),
            "on" or "off" or "dry-run" => await session.Client.SetBalancerAsync(
                new BalancerWish(mode is not "off", mode is "dry-run"), cancellation).ConfigureAwait(false),
            _ => throw new UsageException($"--set {mode}: expected on, off or dry-run"),
        };
        if (session.IsJson)
        {
            return session.Json(info, RestJson.Default.BalancerInfo);
        }

        await session.Out.WriteLineAsync($"balancer: {(info.Enabled ? info.DryRun ? "dry run" : "on" : "off")}, every "
            + $"{info.IntervalSeconds} s, {info.Rounds} rounds").ConfigureAwait(false);
        Table vnodes = new("VM", "VNODE", "ASKED", "PRESENT", "AVAILABLE", "STALL", "TOLD BY", "BALANCED");
        foreach (BalancedVnode vnode in info.Vnodes)
        {
            vnodes.Add(vnode.Vm, Number(vnode.Vnode), Size(vnode.AskedBytes), Size(vnode.PresentBytes),
                vnode.AvailableBytes is { } available ? Size(available) : "-",
                vnode.StallPercent is { } stall ? $"{stall:0.#} %" : "-", vnode.Source, vnode.Pinned ? "no: given a size"
                    : vnode.Source is "unknown" ? "no: nothing known"
                    : vnode.Means is "balloon" ? "yes, by its balloon"
                    : "yes");
        }

        session.Table(vnodes);
        foreach (BalancerEntry entry in info.Decisions.TakeLast(20))
        {
            await session.Out.WriteLineAsync(
                $"{Time(entry.At)} {entry.Vm} vnode {entry.Vnode} {Size(entry.FromBytes)} -> "
                + $"{Size(entry.ToBytes)}{(entry.Applied ? "" : entry.Problem is { } problem ? $" (failed: {problem})" : " (not done)")}: "
                + $"{entry.Reason}").ConfigureAwait(false);
        }

        return ExitCodes.Done;
    }
}
