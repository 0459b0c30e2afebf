using System.Globalization;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Nouns;

/// <summary>How far the move of a VM is, in one line.</summary>
internal static class MoveText
{
    internal static string Of(MoveProgress move)
    {
        string throttled = move.ThrottlePercent > 0 ? $", vCPUs {move.ThrottlePercent}% slower" : "";
        return string.Create(CultureInfo.InvariantCulture,
            $"{move.Stage}, round {move.Round}, {DaemonSession.Size(move.SentBytes)} sent, {DaemonSession.Size(move.LeftBytes)} left, "
                + $"{DaemonSession.Size(move.BytesPerSecond)}/s, {DaemonSession.Size(move.DirtyBytesPerSecond)}/s written anew{throttled}, "
                + $"would stand still {move.DowntimeMilliseconds:0.#} ms");
    }
}
