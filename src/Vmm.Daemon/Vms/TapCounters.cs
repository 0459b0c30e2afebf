using System.Globalization;
using Vmm.Contracts.Control;

namespace Vmm.Daemon.Vms;

/// <summary>What the kernel counts of a tap whose frames it moves itself; a worker sees neither those frames nor /sys.</summary>
internal static class TapCounters
{
    private const string Interfaces = "/sys/class/net";

    /// <summary>
    /// The counters with those of such taps in them. The tap's view is the host's: what it sends, the guest receives. Only taps that the VM
    /// has are looked at: a worker may name any interface of the host, or none.
    /// </summary>
    internal static WorkerStats Fill(
        WorkerStats stats, IReadOnlySet<string> own, string vmId, string interfaces = Interfaces) =>
        stats.Nets.All(net => net.KernelTap is null) ? stats : stats with
        {
            Nets = [.. stats.Nets.Select(net => net.KernelTap is not { } tap ? net
                : !own.Contains(tap) && !IsMade(interfaces, tap, vmId) ? net with { KernelTap = null } : net with
            {
                ReceivedPackets = Read(interfaces, tap, "tx_packets"),
                ReceivedBytes = Read(interfaces, tap, "tx_bytes"),
                SentPackets = Read(interfaces, tap, "rx_packets"),
                SentBytes = Read(interfaces, tap, "rx_bytes"),
                Dropped = Read(interfaces, tap, "tx_dropped") + Read(interfaces, tap, "rx_dropped"),
            })],
        };

    /// <summary>The alias of the taps that are made for a VM; nobody without CAP_NET_ADMIN gives one.</summary>
    internal static string AliasOf(string vmId) => "vmm " + vmId;

    // Of a tap of a private network the alias goes on.
    private static bool IsMade(string interfaces, string tap, string vmId) =>
        (ReadText(interfaces, tap, "ifalias") + ' ').StartsWith(AliasOf(vmId) + ' ', StringComparison.Ordinal);

    /// <summary>0 for a counter that is not there (any more).</summary>
    private static long Read(string interfaces, string tap, string counter) =>
        long.TryParse(ReadText(interfaces, tap, "statistics/" + counter), NumberStyles.None, CultureInfo.InvariantCulture, out long value)
            ? value : 0;

    private static string ReadText(string interfaces, string tap, string file)
    {
        try
        {
            // A name that came from a worker: it cannot lead out of the folder.
            return Path.GetFileName(tap).Length == tap.Length && tap is not (".." or ".") && !tap.Contains('\0', StringComparison.Ordinal)
                ? File.ReadAllText(Path.Combine(interfaces, tap, file)).Trim()
                : "";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
