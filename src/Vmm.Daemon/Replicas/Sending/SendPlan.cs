using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>What the primary does next.</summary>
internal enum SendStep
{
    /// <summary>Nothing waits: both sites have the same.</summary>
    Nothing,

    /// <summary>The other site has points that wait here: they go out of the spool.</summary>
    Acknowledge,

    /// <summary>The oldest point is sent.</summary>
    Send,

    /// <summary>The other site's newest point is fetched as hashes, and what differs is cut.</summary>
    Resync,

    /// <summary>The other site has no point: all is cut.</summary>
    Full,
}

/// <summary>
/// What both sites have says what is to be done; nothing else is remembered. A death at any moment leaves one of these cases.
/// </summary>
/// <param name="Step">What to do.</param>
/// <param name="Points">Of <see cref="SendStep.Acknowledge"/>: how many of the spool's points are safe there.</param>
/// <param name="Why">Of a resync or a full copy: the reason, for people.</param>
internal sealed record SendPlan(SendStep Step, int Points = 0, string Why = "")
{
    /// <summary>Decides.</summary>
    /// <param name="spool">Points that wait here, the oldest first.</param>
    /// <param name="acknowledged">The newest that the other site has acknowledged; empty without one.</param>
    /// <param name="there">The other site's newest; empty without one.</param>
    /// <param name="resync">Why a resync was asked for; null: nobody did.</param>
    internal static SendPlan Next(IReadOnlyList<SealedPoint> spool, Guid acknowledged, Guid there, string? resync)
    {
        if (resync is not null)
        {
            return there == Guid.Empty ? new SendPlan(SendStep.Full, Why: resync) : new SendPlan(SendStep.Resync, Why: resync);
        }

        for (int i = spool.Count - 1; i >= 0; i--)
        {
            if (spool[i].Id == there)
            {
                return new SendPlan(SendStep.Acknowledge, i + 1);
            }
        }

        Guid stands = spool.Count > 0 ? spool[0].Parent : acknowledged;
        return stands == there ? new SendPlan(spool.Count > 0 ? SendStep.Send : SendStep.Nothing)
            : there == Guid.Empty
                ? new SendPlan(SendStep.Full, Why: $"the recovery site has lost its points; its newest was {stands}")
            : new SendPlan(SendStep.Resync, Why: $"the recovery site's newest point is {there}, and what waits here stands on "
                + (stands == Guid.Empty ? "none" : $"{stands}"));
    }
}
