using System.Globalization;

namespace Vmm.Daemon.Vms;

/// <summary>A boot of the host.</summary>
/// <param name="Id">Another one at each boot.</param>
/// <param name="Begin">When it began, in nanoseconds since 1970, by the clock as it is now.</param>
internal readonly record struct HostBoot(Guid Id, long Begin)
{
    /// <summary>This one: random(4), boot_id; proc_stat(5), btime.</summary>
    /// <exception cref="IOException">The kernel does not tell.</exception>
    internal static HostBoot Now
    {
        get
        {
            const string label = "btime ";
            string? line = File.ReadLines("/proc/stat").FirstOrDefault(each => each.StartsWith(label, StringComparison.Ordinal));
            return Guid.TryParse(File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim(), out Guid id)
                && long.TryParse(line.AsSpan(Math.Min(label.Length, line?.Length ?? 0)), CultureInfo.InvariantCulture, out long seconds)
                ? new HostBoot(id, seconds * 1_000_000_000)
                : throw new IOException("/proc tells neither which boot this is nor when it began");
        }
    }
}
