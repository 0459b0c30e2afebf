using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>Whether both sites are of one history.</summary>
internal static class Fence
{
    /// <summary>Why nothing may be sent; null: the other site has this history.</summary>
    /// <param name="own">The primary's generations.</param>
    /// <param name="site">The recovery site.</param>
    internal static string? Of(ReplicaGenerations own, ReplicaSiteInfo site)
    {
        string both = $"here {Text(own)}, there {Text(site.Generations)}";
        return site.State == ReplicaSiteState.FailedOver
                ? $"the recovery site has failed over: {both}: cancel that there, or let that site become the primary (replica reverse)"
            : site.State == ReplicaSiteState.Committed
                ? $"the recovery site has become the primary: {both}: nothing of this site is sent there any more"
            : Is(site.Generations.Current, own.Current) || Is(site.Generations.Current, own.LastCommon) ? null
            : $"the recovery site has another history: {both}: 'vmmctl replica resync' brings this site's over it";
    }

    /// <summary>The generations with which this site goes on over the other one's history, as a person has decided.</summary>
    internal static ReplicaGenerations Over(ReplicaGenerations own, ReplicaGenerations there) =>
        Is(own.Current, there.Current) ? own : new ReplicaGenerations(own.Current, there.Current, own.LastCommon, own.Older);

    private static bool Is(string one, string other) => one.Length > 0 && string.Equals(one, other, StringComparison.OrdinalIgnoreCase);

    private static string Text(ReplicaGenerations known) => string.Join(
        " after ",
        new[] { known.Current, known.LastCommon, known.Older, known.Oldest }.Where(each => each.Length > 0));
}
