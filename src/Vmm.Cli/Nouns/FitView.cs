using System.Globalization;
using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Nouns;

/// <summary><c>vmmctl host fit</c>, and the same part of <c>vmmctl vm numa</c>: how a topology lies on a host.</summary>
internal static class FitView
{
    /// <summary>Exit code 1 when some vnode has no room.</summary>
    internal static async Task<int> RunAsync(DaemonSession session, string file, bool askDaemon, CancellationToken cancellation)
    {
        NumaFitInfo fit;
        try
        {
            // A file that is not sound is told of with the file's name and lines, whoever is asked.
            VmSpec spec = SpecReader.ReadFile(file);
            fit = askDaemon ? await session.Client.FitAsync(
                await File.ReadAllTextAsync(file, cancellation).ConfigureAwait(false), cancellation).ConfigureAwait(false) : Here(spec);
        }
        catch (SpecException e)
        {
            foreach (SpecProblem problem in e.Problems)
            {
                session.Fail(problem.ToString());
            }

            return ExitCodes.Usage;
        }
        catch (HostMismatchException e)
        {
            session.Fail(e.Message);
            return ExitCodes.Failed;
        }

        if (session.IsJson)
        {
            session.Json(fit, RestJson.Default.NumaFitInfo);
        }
        else
        {
            Write(session, fit);
        }

        return fit.Vnodes.Any(v => v.Outcome is "no-room") ? ExitCodes.Failed : ExitCodes.Done;
    }

    internal static void Write(DaemonSession session, NumaFitInfo fit)
    {
        Table table = new("VNODE", "FIT", "WANTED", "HOST NODES", "WHY");
        foreach (VnodeFitInfo vnode in fit.Vnodes)
        {
            table.Add(Number(vnode.Vnode), vnode.Outcome, vnode.Wanted.Length > 0 ? vnode.Wanted : "any",
                vnode.Shares.Count == 0 ? "any" : string.Join(
                    ", ", vnode.Shares.Select(s => vnode.Shares.Count == 1 ? Number(s.Node) : $"{Size(s.Bytes)} on {s.Node}")), vnode.Text);
        }

        session.Table(table);
        session.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"distances: {fit.DistancePercent} %: {fit.Distances}"));
    }

    private static NumaFitInfo Here(VmSpec spec)
    {
        HostTopology host = HostTopology.Read();
        NumaFitResult fit = NumaFit.Map(NumaProjection.Apply(spec, host), host, HugePagePool.Read());
        return new(
            [
                .. fit.Vnodes.Select(v => new VnodeFitInfo(
                    v.Vnode,
                    Names.Of(v.Outcome),
                    NumberSet.Format(v.Wanted),
                    [.. v.Shares.Select(s => new NodeBytes(s.Node, s.Bytes))],
                    v.Text))],
            fit.Distances.Percent,
            fit.Distances.Text);
    }
}
