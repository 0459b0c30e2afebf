using System.Text.Json;
using Vmm.Contracts.Control;

namespace Vmm.Contracts.Rest;

/// <summary>NUMA: who is where, and moving it.</summary>
public static class NumaRequests
{
    /// <summary>The host's NUMA nodes and who sits there.</summary>
    public static Task<HostNuma> HostNumaAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "host/numa", null, RestJson.Default.HostNuma, cancellation);

    /// <summary>How the vnodes of a spec would lie on the daemon's host now; nothing is started.</summary>
    /// <param name="client">The daemon.</param>
    /// <param name="yaml">The spec.</param>
    /// <param name="cancellation">Gives up.</param>
    public static Task<NumaFitInfo> FitAsync(this VmmClient client, string yaml, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Post, "host/fit", yaml, RestJson.Default.NumaFitInfo, cancellation);

    /// <summary>What the balancer sees and decides.</summary>
    public static Task<BalancerInfo> BalancerAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "balancer", null, RestJson.Default.BalancerInfo, cancellation);

    /// <summary>Changes the balancer until the daemon's next start.</summary>
    public static Task<BalancerInfo> SetBalancerAsync(this VmmClient client, BalancerWish wish, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Put,
            "balancer",
            JsonSerializer.Serialize(wish, RestJson.Default.BalancerWish),
            RestJson.Default.BalancerInfo,
            cancellation);

    /// <summary>How the host's memory stands, and what was taken from VMs with a resident limit.</summary>
    public static Task<PressureInfo> PressureAsync(this VmmClient client, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, "pressure", null, RestJson.Default.PressureInfo, cancellation);

    /// <summary>Where a running VM lies on its host.</summary>
    public static Task<VmNuma> NumaAsync(this VmmClient client, string name, CancellationToken cancellation) =>
        client.AskAsync(HttpMethod.Get, VmmClient.Vm(name) + "/numa", null, RestJson.Default.VmNuma, cancellation);

    /// <summary>Begins to move a vnode of a running VM to other host nodes; the job is done when it is there.</summary>
    public static Task<JobInfo> RehomeAsync(
        this VmmClient client, string name, int vnode, RehomeRequest wish, CancellationToken cancellation) =>
        client.AskAsync(
            HttpMethod.Post,
            FormattableString.Invariant($"{VmmClient.Vm(name)}/vnodes/{vnode}/rehome"),
            JsonSerializer.Serialize(wish, RestJson.Default.RehomeRequest),
            RestJson.Default.JobInfo,
            cancellation);
}
