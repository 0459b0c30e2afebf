using System.Globalization;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.Memory;
using Vmm.Placement;
using Vmm.Spec;
using static Vmm.Daemon.Vms.WorkerCalls;

namespace Vmm.Daemon.Vms;

/// <summary>Where a VM lies on the host, and moving its vnodes.</summary>
internal sealed class VmHomes(VmSupervisor vm)
{
    private const int MostNodes = 1024;
    private const ulong LeastRate = 1 << 20;

    /// <summary>
    /// Bytes per vnode and host node; null while it does not run, or when the kernel does not let us look. Takes a while for a large VM.
    /// </summary>
    internal IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? PresentMemory() => vm.Worker?.PresentMemory();

    /// <summary>Where its vnodes are meant to be, and where their pages are.</summary>
    /// <exception cref="ApiException">It does not run, or does not answer.</exception>
    internal async Task<VmNuma> ReadAsync(CancellationToken cancellation)
    {
        IWorker worker = vm.RequireWorker();
        WorkerNuma homes = await CallAsync(() => worker.NumaAsync(cancellation)).ConfigureAwait(false);
        IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? present = await Task.Run(
            worker.PresentMemory, cancellation).ConfigureAwait(false);
        return new VmNuma([.. homes.Vnodes.Select(v => NumaView.Of(v, worker.ProcessId, present))], homes.Rehome, homes.Fit);
    }

    /// <summary>Tells how the vnodes of a spec with <c>fit: best</c> came to lie on the host: an event, and a line in the log.</summary>
    internal async Task ReportFitAsync(IWorker worker, VmSpec spec, CancellationToken cancellation)
    {
        if (spec.Numa is not { Fit: FitWish.Best } || (await worker.NumaAsync(cancellation).ConfigureAwait(false)).Fit is not { } fit)
        {
            return;
        }

        VnodeFitInfo[] others = [.. fit.Vnodes.Where(v => v.Outcome is not "exact")];
        string outcome = (others.Length == 0
            ? "every vnode is where the spec says"
            : string.Join("; ", others.Select(v => $"vnode {v.Vnode} {v.Text}")))
            + $"; {fit.Distances}";
        if (others.Length == 0)
        {
            DaemonLog.Fitted(vm.Log, vm.Name, outcome);
        }
        else
        {
            DaemonLog.FittedOtherwise(vm.Log, vm.Name, outcome);
        }

        vm.Events.Publish("numa-fit", vm.Name, message: outcome);
    }

    /// <summary>
    /// Checks a request to move a vnode, and answers with the work of a job: it moves the vnode, and fails when something stays behind.
    /// </summary>
    /// <exception cref="ApiException">It cannot be moved there.</exception>
    internal async Task<Func<Action<double>, CancellationToken, Task>> PlanRehomeAsync(
        int vnode, RehomeRequest request, CancellationToken cancellation)
    {
        if (request.HostNodes is null || !NumberSet.TryParse(request.HostNodes, MostNodes, out IReadOnlyList<int> nodes)
            || nodes.Count == 0)
        {
            throw Impossible($"hostNodes: '{request.HostNodes}' is not a list of host nodes such as 1 or 0-1");
        }

        if (request.BytesPerSecond < LeastRate)
        {
            throw Impossible($"bytesPerSecond: {request.BytesPerSecond} is less than {LeastRate}");
        }

        IWorker worker = vm.RequireWorker();
        WorkerNuma homes = await CallAsync(() => worker.NumaAsync(cancellation)).ConfigureAwait(false);
        VnodeHomeInfo home = homes.Vnodes.FirstOrDefault(v => v.Vnode == vnode)
            ?? throw Impossible($"{vm.Name} has no vnode {vnode}: it has {homes.Vnodes.Count} (0-{homes.Vnodes.Count - 1})");
        if (homes.Rehome is { State: RehomeState.Running } going)
        {
            throw new ApiException(409, "rehome-running", "another vnode is being moved", $"{vm.Name}: vnode {going.Vnode} is being moved "
                + $"to host node {NumberSet.Format(going.HostNodes)}: wait for it, or cancel its job");
        }

        HostTopology host = HostTopology.Read();
        try
        {
            ulong bytes = await MissingAsync(worker, home, nodes, cancellation).ConfigureAwait(false);
            NumaAdmission.CheckMove($"{vm.Name}, vnode {vnode}", nodes, bytes, home.PageBytes, host, HugePagePool.Read());
        }
        catch (HostMismatchException e)
        {
            throw Impossible(e.Message);
        }

        RehomeBody body = new(vnode, nodes, host.CpusNear(nodes), request.BytesPerSecond);
        return (progress, cancel) => RehomeAsync(worker, body, progress, cancel);
    }

    /// <summary>What the nodes do not have yet of a vnode: all it may ever touch when they must hold it, else what is there.</summary>
    private async Task<ulong> MissingAsync(IWorker worker, VnodeHomeInfo home, IReadOnlyList<int> nodes, CancellationToken cancellation)
    {
        VmMemory memory = await CallAsync(() => worker.MemoryAsync(null, cancellation)).ConfigureAwait(false);
        ulong asked = memory.Vnodes.FirstOrDefault(v => v.Vnode == home.Vnode)?.AskedBytes ?? 0;
        IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? present = await Task.Run(
            worker.PresentMemory, cancellation).ConfigureAwait(false);
        IReadOnlyDictionary<int, ulong> mine = present?.GetValueOrDefault(home.Vnode) ?? new Dictionary<int, ulong>();
        ulong there = 0, elsewhere = 0;
        foreach ((int node, ulong bytes) in mine)
        {
            if (nodes.Contains(node))
            {
                there += bytes;
            }
            else
            {
                elsewhere += bytes;
            }
        }

        bool all = present is null || home.Policy is "strict";
        return all ? asked - Math.Min(asked, there) : elsewhere;
    }

    private async Task RehomeAsync(IWorker worker, RehomeBody body, Action<double> progress, CancellationToken cancellation)
    {
        await CallAsync(() => worker.RehomeAsync(body, cancellation)).ConfigureAwait(false);
        bool asked = false;
        for (int delay = 10; ; delay = Math.Min(delay * 2, 250))
        {
            // Once begun it is followed to its end, also when that is a cancel: what is told is what became of it.
            RehomeStatus status = (await CallAsync(() => worker.NumaAsync(CancellationToken.None)).ConfigureAwait(false)).Rehome
                ?? throw new ApiException(
                    502, "bad-answer", "the worker refused or failed", $"{vm.Name}: the worker forgot that it moves vnode {body.Vnode}");
            if (status.State != RehomeState.Running)
            {
                Report(status);
                if (status.State == RehomeState.Cancelled)
                {
                    cancellation.ThrowIfCancellationRequested();
                    throw new ApiException(409, "rehome-cancelled", "the move was cancelled",
                        $"{vm.Name}: somebody else cancelled the move of vnode {body.Vnode}");
                }

                return;
            }

            progress(status.Progress);
            if (cancellation.IsCancellationRequested && !asked)
            {
                await CallAsync(() => worker.CancelRehomeAsync(CancellationToken.None)).ConfigureAwait(false);
                (asked, delay) = (true, 5);
            }

            await Task.Delay(delay, asked ? CancellationToken.None : cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <summary>An event and a line in the log; an error when the vnode is not, or not wholly, where it was to go.</summary>
    private void Report(RehomeStatus status)
    {
        string what = $"vnode {status.Vnode} to host node {NumberSet.Format(status.HostNodes)}";
        string how = string.Create(
            CultureInfo.InvariantCulture, $"{status.MovedBytes >> 20} MiB moved in {status.Milliseconds / 1000.0:0.0} s");
        string left = string.Join(", ", status.Left.Select(l => $"{l.Bytes >> 10} KiB on node {l.Node}"));
        (string outcome, ApiException? error) = status.State switch
        {
            RehomeState.Done when status.Left.Count == 0 => ($"{what}: {how}", null),
            RehomeState.Done => ($"{what}: {how}, but left behind: {left}",
                new ApiException(409, "rehome-incomplete", "some memory stayed behind", $"{vm.Name}, {what}: {how}; new memory comes from "
                    + $"there, but what stayed is {left}: the node is full, or a device holds these pages; try again later")),
            RehomeState.Cancelled => ($"{what}: cancelled, {how} and stay there; policy and threads are as before", (ApiException?)null),
            _ => ($"{what}: failed: {status.Message}", new ApiException(502, "rehome-failed", "the vnode cannot be moved",
                $"{vm.Name}, {what}: {status.Message}; policy and threads are as before")),
        };
        DaemonLog.Rehomed(vm.Log, vm.Name, outcome);
        vm.Events.Publish("rehome", vm.Name, message: outcome);
        if (error is not null)
        {
            throw error;
        }
    }

    private static ApiException Impossible(string why) => new(422, "rehome-impossible", "the vnode cannot be moved there", why);
}
