using System.Globalization;
using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Memory;
using Vmm.Spec;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm numa</c> and <c>vmmctl vm rehome</c>: where a VM lies on its host, and moving its vnodes.</summary>
internal static class NumaView
{
    internal static async Task<int> ShowAsync(DaemonSession session, string name, CancellationToken cancellation)
    {
        VmNuma numa = await session.Client.NumaAsync(name, cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(numa, RestJson.Default.VmNuma);
        }

        Table table = new("VNODE", "VCPUS", "HOST NODES", "POLICY", "PAGES", "PRESENT", "AT HOME");
        Table threads = new("THREAD", "VNODE", "MAY RUN ON", "RAN LAST ON");
        foreach (VnodeNuma vnode in numa.Vnodes)
        {
            table.Add(Number(vnode.Vnode), Or(vnode.Vcpus, "-"), Or(vnode.HostNodes, "any"), vnode.Policy,
                new ByteSize(vnode.PageBytes).ToString(),
                vnode.Present is null ? "unknown"
                    : vnode.Present.Count == 0 ? "none"
                    : string.Join(", ", vnode.Present.Select(p => $"{Size(p.Bytes)} on {p.Node}")),
                vnode.AtHomePercent is { } share ? share.ToString("0.0", CultureInfo.InvariantCulture) + " %" : "-");
            foreach (ThreadPlace thread in vnode.Threads)
            {
                threads.Add(thread.Name, Number(vnode.Vnode), thread.AllowedCpus ?? "-", thread.LastCpu is { } cpu ? Number(cpu) : "-");
            }
        }

        session.Table(table);
        await session.Out.WriteLineAsync().ConfigureAwait(false);
        session.Table(threads);
        if (numa.Fit is { } fit)
        {
            await session.Out.WriteLineAsync().ConfigureAwait(false);
            FitView.Write(session, fit);
        }

        if (numa.Rehome is { } move)
        {
            await session.Out.WriteLineAsync($"\nlast move: {Describe(move)}").ConfigureAwait(false);
        }

        return ExitCodes.Done;
    }

    /// <summary>Begins to move a vnode; follows it when told to.</summary>
    internal static async Task<int> RehomeAsync(
        DaemonSession session, string name, int vnode, string nodes, string? rate, TimeSpan? wait, CancellationToken cancellation)
    {
        ulong? bytes = rate is null ? null
            : SpecText.TryParseSize(rate, out ByteSize size) ? size.Bytes
            : throw new UsageException($"--rate {rate}: expected bytes a second such as 500MiB or 1GiB");
        JobInfo job = await session.Client.RehomeAsync(name, vnode, new RehomeRequest(nodes, bytes), cancellation).ConfigureAwait(false);
        int answer = await JobFollower.EndAsync(session, job, wait, cancellation).ConfigureAwait(false);
        if (wait is not null && !session.IsJson && answer == ExitCodes.Done
            && (await session.Client.NumaAsync(name, cancellation).ConfigureAwait(false)).Rehome is { } move)
        {
            await session.Out.WriteLineAsync(Describe(move)).ConfigureAwait(false);
        }

        return answer;
    }

    private static string Describe(RehomeStatus move) => string.Create(CultureInfo.InvariantCulture,
        $"vnode {move.Vnode} to host node {NumberSet.Format(move.HostNodes)}: {move.State.ToString().ToLowerInvariant()}, "
            + $"{move.MovedBytes >> 20} MiB "
            + $"moved{(move.State == RehomeState.Running ? $", {move.Progress * 100:0} %" : $" in {move.Milliseconds / 1000.0:0.0} s")}")
        + (move.Left.Count > 0 ? "; left behind: " + string.Join(", ", move.Left.Select(l => $"{Size(l.Bytes)} on node {l.Node}")) : "")
        + (move.Message is { } message ? ": " + message : "");

    private static string Or(string text, string otherwise) => text.Length > 0 ? text : otherwise;
}
