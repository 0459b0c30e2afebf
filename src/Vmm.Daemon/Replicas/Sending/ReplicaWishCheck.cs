using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>What an operator may ask for.</summary>
internal static class ReplicaWishCheck
{
    private const int LeastInterval = 5, MostInterval = 3600, MostKeep = 366 * 24 * 3600, MostNumber = 10_000, MostQuiesce = 60,
        MostPause = 7 * 24 * 3600, MostDisks = 64, MostReason = 200;

    /// <summary>Looks at what needs neither VM nor site.</summary>
    /// <exception cref="ApiException">A value cannot be; its field is named.</exception>
    internal static void Require(ReplicaWish wish)
    {
        ReplicaKeep keep = wish.Keep ?? new ReplicaKeep();
        Within("intervalSeconds", wish.IntervalSeconds ?? LeastInterval, LeastInterval, MostInterval);
        Within("keep.allSeconds", keep.AllSeconds, 0, MostKeep);
        Within("keep.hourly", keep.Hourly, 0, MostNumber);
        Within("keep.daily", keep.Daily, 0, MostNumber);
        Within("quiesceSeconds", wish.QuiesceSeconds ?? 1, 1, MostQuiesce);
        if (wish.BytesPerSecond is 0)
        {
            throw ReplicaProblem.Invalid("bytesPerSecond", "0, expected more, or none");
        }

        if (wish.Disks is { Count: 0 or > MostDisks })
        {
            throw ReplicaProblem.Invalid("disks", $"{wish.Disks.Count} disks, expected 1 to {MostDisks}, or none for all");
        }
    }

    /// <summary>A suspension as a person asks for it.</summary>
    /// <param name="wish">How.</param>
    /// <param name="who">Who asks.</param>
    /// <param name="now">The time.</param>
    /// <exception cref="ApiException">A value cannot be; its field is named.</exception>
    internal static ReplicaSuspension Suspension(ReplicaPauseWish wish, string who, DateTimeOffset now)
    {
        int seconds = wish.Seconds ?? 3600;
        Within("seconds", seconds, 1, MostPause);
        return wish.Reason is { Length: > MostReason }
            ? throw ReplicaProblem.Invalid("reason", $"{wish.Reason.Length} letters, expected {MostReason} at most")
            : new ReplicaSuspension(
                who, Vmm.Contracts.SafeText.Line(wish.Reason ?? "no reason was given", MostReason), now + TimeSpan.FromSeconds(seconds));
    }

    private static void Within(string field, int value, int least, int most)
    {
        if (value < least || value > most)
        {
            throw ReplicaProblem.Invalid(field, $"{value}, expected {least} to {most}");
        }
    }
}
