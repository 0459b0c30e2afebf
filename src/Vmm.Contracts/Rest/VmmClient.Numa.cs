using System.Text.Json;
using Vmm.Contracts.Control;

namespace Vmm.Contracts.Rest;

/// <content>NUMA: who is where, and moving it.</content>
public sealed partial class VmmClient
{
    /// <summary>The host's NUMA nodes and who sits there.</summary>
    public Task<HostNuma> HostNumaAsync(CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, "host/numa", null, RestJson.Default.HostNuma, cancellation);

    /// <summary>How the vnodes of a spec would lie on the daemon's host now; nothing is started.</summary>
    /// <param name="yaml">The spec.</param>
    /// <param name="cancellation">Gives up.</param>
    public Task<NumaFitInfo> FitAsync(string yaml, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Post, "host/fit", yaml, RestJson.Default.NumaFitInfo, cancellation);

    /// <summary>What the balancer sees and decides.</summary>
    public Task<BalancerInfo> BalancerAsync(CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, "balancer", null, RestJson.Default.BalancerInfo, cancellation);

    /// <summary>Changes the balancer until the daemon's next start.</summary>
    public Task<BalancerInfo> SetBalancerAsync(BalancerWish wish, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Put, "balancer", JsonSerializer.Serialize(wish, RestJson.Default.BalancerWish), RestJson.Default.BalancerInfo,
            cancellation);

    /// <summary>Where a running VM lies on its host.</summary>
    public Task<VmNuma> NumaAsync(string name, CancellationToken cancellation) =>
        SendAsync(HttpMethod.Get, Vm(name) + "/numa", null, RestJson.Default.VmNuma, cancellation);

    /// <summary>Begins to move a vnode of a running VM to other host nodes; the job is done when it is there.</summary>
    public Task<JobInfo> RehomeAsync(string name, int vnode, RehomeRequest wish, CancellationToken cancellation) =>
        SendAsync(
            HttpMethod.Post,
            FormattableString.Invariant($"{Vm(name)}/vnodes/{vnode}/rehome"),
            JsonSerializer.Serialize(wish, RestJson.Default.RehomeRequest),
            RestJson.Default.JobInfo,
            cancellation);
}
