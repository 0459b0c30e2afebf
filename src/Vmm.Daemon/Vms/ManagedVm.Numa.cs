using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <content>Where the VM lies on the host, and moving its vnodes.</content>
public sealed partial class ManagedVm
{
    private const int MostNodes = 1024;
    private const ulong LeastRate = 1 << 20;

    /// <summary>Bytes per vnode and host node; null while it does not run, or when the kernel does not let us look. Takes a while for a large VM.</summary>
    internal IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? PresentMemory()
    {
        IWorker? worker;
        lock (_gate)
        {
            worker = _worker;
        }

        return worker?.PresentMemory();
    }

    internal async Task<VmNuma> NumaAsync(CancellationToken cancellation)
    {
        IWorker worker = Alive();
        WorkerNuma homes = await Call(() => worker.NumaAsync(cancellation)).ConfigureAwait(false);
        IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? present = await Task.Run(worker.PresentMemory, cancellation).ConfigureAwait(false);
        return new VmNuma([.. homes.Vnodes.Select(v => NumaView.Of(v, worker.ProcessId, present))], homes.Rehome, homes.Fit);
    }

    /// <summary>Tells how the vnodes of a spec with <c>fit: best</c> came to lie on the host: an event, and a line in the log.</summary>
    private async Task TellFitAsync(IWorker worker, VmSpec spec, CancellationToken cancellation)
    {
        if (spec.Numa is not { Fit: FitWish.Best } || (await worker.NumaAsync(cancellation).ConfigureAwait(false)).Fit is not { } fit)
        {
            return;
        }

        VnodeFitInfo[] others = [.. fit.Vnodes.Where(v => v.Outcome is not "exact")];
        string outcome = (others.Length == 0 ? "every vnode is where the spec says" : string.Join("; ", others.Select(v => $"vnode {v.Vnode} {v.Text}"))) + $"; {fit.Distances}";
        if (others.Length == 0)
        {
            DaemonLog.Fitted(_log, Record.Name, outcome);
        }
        else
        {
            DaemonLog.FittedOtherwise(_log, Record.Name, outcome);
        }

        _events.Publish("numa-fit", Record.Name, message: outcome);
    }

    /// <summary>Checks a wish to move a vnode, and answers with the work of a job: it moves the vnode, and fails when something stays behind.</summary>
    /// <exception cref="ApiException">It cannot be moved there.</exception>
    internal async Task<Func<Action<double>, CancellationToken, Task>> PlanRehomeAsync(int vnode, RehomeRequest wish, CancellationToken cancellation)
    {
        if (wish.HostNodes is null || !NumberSet.TryParse(wish.HostNodes, MostNodes, out IReadOnlyList<int> nodes) || nodes.Count == 0)
        {
            throw Impossible($"hostNodes: '{wish.HostNodes}' is not a list of host nodes such as 1 or 0-1");
        }

        if (wish.BytesPerSecond < LeastRate)
        {
            throw Impossible($"bytesPerSecond: {wish.BytesPerSecond} is less than {LeastRate}");
        }

        IWorker worker = Alive();
        WorkerNuma homes = await Call(() => worker.NumaAsync(cancellation)).ConfigureAwait(false);
        VnodeHomeInfo home = homes.Vnodes.FirstOrDefault(v => v.Vnode == vnode) ?? throw Impossible($"{Record.Name} has no vnode {vnode}: it has {homes.Vnodes.Count} (0-{homes.Vnodes.Count - 1})");
        if (homes.Rehome is { State: RehomeState.Running } going)
        {
            throw new ApiException(409, "rehome-running", "another vnode is being moved", $"{Record.Name}: vnode {going.Vnode} is being moved to host node {NumberSet.Format(going.HostNodes)}: wait for it, or cancel its job");
        }

        HostTopology host = HostTopology.Read();
        try
        {
            ulong bytes = await MissingAsync(worker, home, nodes, cancellation).ConfigureAwait(false);
            NumaAdmission.CheckMove($"{Record.Name}, vnode {vnode}", nodes, bytes, home.PageBytes, host, HugePagePool.Read());
        }
        catch (HostMismatchException e)
        {
            throw Impossible(e.Message);
        }

        RehomeBody body = new(vnode, nodes, host.CpusNear(nodes), wish.BytesPerSecond);
        return (progress, cancel) => RehomeAsync(worker, body, progress, cancel);
    }

    /// <summary>What the nodes do not have yet of a vnode: all it may ever touch when they must hold it, else what is there.</summary>
    private async Task<ulong> MissingAsync(IWorker worker, VnodeHomeInfo home, IReadOnlyList<int> nodes, CancellationToken cancellation)
    {
        VmMemory memory = await Call(() => worker.MemoryAsync(null, cancellation)).ConfigureAwait(false);
        ulong asked = memory.Vnodes.FirstOrDefault(v => v.Vnode == home.Vnode)?.AskedBytes ?? 0;
        IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? present = await Task.Run(worker.PresentMemory, cancellation).ConfigureAwait(false);
        IReadOnlyDictionary<int, ulong> mine = present?.GetValueOrDefault(home.Vnode) ?? new Dictionary<int, ulong>();
        ulong there = 0, elsewhere = 0;
        foreach ((int node, ulong bytes) in mine)
        {
            _ = nodes.Contains(node) ? there += bytes : elsewhere += bytes;
        }

        bool all = present is null || home.Policy is "strict";
        return all ? asked - Math.Min(asked, there) : elsewhere;
    }

    private async Task RehomeAsync(IWorker worker, RehomeBody body, Action<double> progress, CancellationToken cancellation)
    {
        await Call(() => worker.RehomeAsync(body, cancellation)).ConfigureAwait(false);
        bool asked = false;
        for (int delay = 10; ; delay = Math.Min(delay * 2, 250))
        {
            // Once begun it is followed to its end, also when that is a cancel: what is told is what became of it.
            RehomeStatus status = (await Call(() => worker.NumaAsync(CancellationToken.None)).ConfigureAwait(false)).Rehome
                ?? throw new ApiException(502, "bad-answer", "the worker refused or failed", $"{Record.Name}: the worker forgot that it moves vnode {body.Vnode}");
            if (status.State != RehomeState.Running)
            {
                Tell(status);
                if (status.State == RehomeState.Cancelled)
                {
                    cancellation.ThrowIfCancellationRequested();
                    throw new ApiException(409, "rehome-cancelled", "the move was cancelled", $"{Record.Name}: somebody else cancelled the move of vnode {body.Vnode}");
                }

                return;
            }

            progress(status.Progress);
            if (cancellation.IsCancellationRequested && !asked)
            {
                await Call(() => worker.CancelRehomeAsync(CancellationToken.None)).ConfigureAwait(false);
                (asked, delay) = (true, 5);
            }

            await Task.Delay(delay, asked ? CancellationToken.None : cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <summary>An event and a line in the log; an error when the vnode is not, or not wholly, where it was to go.</summary>
    private void Tell(RehomeStatus status)
    {
        string what = $"vnode {status.Vnode} to host node {NumberSet.Format(status.HostNodes)}";
        string how = string.Create(CultureInfo.InvariantCulture, $"{status.MovedBytes >> 20} MiB moved in {status.Milliseconds / 1000.0:0.0} s");
        string left = string.Join(", ", status.Left.Select(l => $"{l.Bytes >> 10} KiB on node {l.Node}"));
        (string outcome, ApiException? error) = status.State switch
        {
            RehomeState.Done when status.Left.Count == 0 => ($"{what}: {how}", null),
            RehomeState.Done => ($"{what}: {how}, but left behind: {left}",
                new ApiException(409, "rehome-incomplete", "some memory stayed behind", $"{Record.Name}, {what}: {how}; new memory comes from there, but what stayed is {left}: the node is full, or a device holds these pages; try again later")),
            RehomeState.Cancelled => ($"{what}: cancelled, {how} and stay there; policy and threads are as before", (ApiException?)null),
            _ => ($"{what}: failed: {status.Message}", new ApiException(502, "rehome-failed", "the vnode cannot be moved", $"{Record.Name}, {what}: {status.Message}; policy and threads are as before")),
        };
        DaemonLog.Rehomed(_log, Record.Name, outcome);
        _events.Publish("rehome", Record.Name, message: outcome);
        if (error is not null)
        {
            throw error;
        }
    }

    private static ApiException Impossible(string why) => new(422, "rehome-impossible", "the vnode cannot be moved there", why);
}
