using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Memory;
using Vmm.Spec;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm memory</c>: what each vnode has, and asking for more or less.</summary>
internal static class MemoryView
{
    /// <param name="session">Where to ask.</param>
    /// <param name="name">The VM.</param>
    /// <param name="given">What to change.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal static async Task<int> RunAsync(
        DaemonSession session, string name, MemoryArguments given, CancellationToken cancellation)
    {
        MemoryWish? wish = given.Wish();
        VmMemory memory = wish is not null
            ? await session.Client.ChangeMemoryAsync(name, wish, TimeSpan.FromSeconds(given.Timeout), cancellation).ConfigureAwait(false)
            : await session.Client.MemoryAsync(name, cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            session.Json(memory, RestJson.Default.VmMemory);
        }
        else
        {
            Show(session, memory);
        }

        if (wish is null or { Bytes: null, BalloonBytes: null, Auto: null } || memory.Settled)
        {
            return ExitCodes.Done;
        }

        session.Fail(
            $"{name}: the guest did not get there in {given.Timeout} s; it goes on, 'vmmctl vm memory {name}' shows how far it is");
        return ExitCodes.Failed;
    }

    private static void Show(DaemonSession session, VmMemory memory)
    {
        Table table = new("VNODE", "ASKED", "PRESENT", "LEAST", "MOST", "NOT GIVEN BACK", "DRIVER");
        foreach (VnodeMemoryInfo info in memory.Vnodes)
        {
            table.Add(Number(info.Vnode), Size(info.AskedBytes), Size(info.PresentBytes), Size(info.LeastBytes), Size(info.MostBytes),
                info.StuckBytes == 0 ? "-" : Size(info.StuckBytes), info.MostBytes > info.LeastBytes ? info.Driven ? "yes" : "no"
                    : memory is { Balloon: not null, Vnodes.Count: 1 } ? "balloon"
                    : "fixed");
        }

        session.Table(table);
        foreach (VnodeMemoryInfo info in memory.Vnodes.Where(v => v.HeldBackBytes > 0))
        {
            session.Out.WriteLine(
                $"vnode {Number(info.Vnode)}: not yet asked for {Size(info.HeldBackBytes)} of it: the guest "
                + $"{(memory.Balloon?.AvailableBytes is { } left ? $"has {Size(left)} available, " : "")}would have too little left "
                + "(--force asks all the same)");
        }

        if (memory.Paging is { } paging)
        {
            Show(session, paging);
        }

        if (memory.Balloon is { } balloon)
        {
            string below = memory.Vnodes is [{ BelowBytes: > 0 } vnode]
                ? $" (to bring vnode {vnode.Vnode} below {Size(vnode.LeastBytes)})"
                : "";
            session.Out.WriteLine(
                $"balloon: asked {Size(balloon.TargetBytes)}{below}, has "
                + $"{Size(balloon.ActualBytes)}"
                + (balloon.FreeBytes is { } free
                    ? $"; guest free {Size(free)}{(balloon.SaidMsAgo >= 10_000 ? $" ({balloon.SaidMsAgo / 1000} s ago)" : "")}"
                    : ""));
        }
    }

    private static void Show(DaemonSession session, PagingInfo paging)
    {
        session.Out.WriteLine(
            $"resident: {Size(paging.ResidentBytes)} of at most {Size(paging.LimitBytes)} (staged {Size(paging.StagedBytes)}), swapped "
            + $"{Size(paging.SwappedBytes)} (file {Size(paging.SwapFileBytes)})");
        session.Out.WriteLine(
            $"transfers: pinned {Size(paging.PinnedBytes)} (most {Size(paging.PinnedPeakBytes)}), {Number((long)paging.Hits)} found their "
            + $"pages, {Number((long)paging.Misses)} waited for some, {Number((long)paging.BudgetWaits)} for others to end");
        session.Out.WriteLine(
            $"pages: {Number((long)paging.Faults)} faults, {Number((long)paging.PagesOut)} out, {Number((long)paging.PagesIn)} in, "
            + $"{Number((long)paging.ZeroPages)} zero, {Number((long)paging.UnchangedPages)} unchanged, "
            + $"{Number((long)paging.RefusedEvictions)} kept for a transfer");
        if (paging.ForeignFaults > 0)
        {
            session.Out.WriteLine(
                $"an I/O thread waited for a page {Number((long)paging.ForeignFaults)} times: a device touches memory "
                + "without asking the pager");
        }

        if (paging.Stopped is { } why)
        {
            session.Out.WriteLine($"no page goes out: {why}");
        }
    }
}
