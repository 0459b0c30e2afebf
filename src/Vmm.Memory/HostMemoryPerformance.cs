using System.Globalization;

namespace Vmm.Memory;

/// <summary>
/// How fast a host node's nearest processors reach its memory, as the kernel learned it from the host's HMAT
/// (Documentation/admin-guide/mm/numaperf.rst).
/// </summary>
/// <param name="LatencyNanoseconds">Of an access; null when the host does not say.</param>
/// <param name="BandwidthMegabytes">10^6 bytes a second; null when the host does not say.</param>
public sealed record HostMemoryPerformance(int? LatencyNanoseconds, int? BandwidthMegabytes)
{
    /// <summary>Reads what there is of a node; tests give another root.</summary>
    public static HostMemoryPerformance Read(int node, string sysfs = "/sys")
    {
        string folder = Path.Combine(
            sysfs, string.Create(CultureInfo.InvariantCulture, $"devices/system/node/node{node}/access0/initiators"));
        return new HostMemoryPerformance(Number(folder, "read_latency"), Number(folder, "read_bandwidth"));
    }

    // Missing, zero and nonsense are all "does not say".
    private static int? Number(string folder, string file)
    {
        try
        {
            return int.TryParse(
                File.ReadAllText(Path.Combine(folder, file)).Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out int value)
                && value > 0
                ? value
                : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
