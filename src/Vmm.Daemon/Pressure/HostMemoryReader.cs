using System.Globalization;
using System.Text;
using Vmm.Memory;

namespace Vmm.Daemon.Pressure;

/// <summary>
/// Reads how the host's memory stands. A file that is missing or says nonsense is no error: the next best one is read in its place, and the
/// reading says so. No more than <see cref="LongestFile"/> bytes are read of any file.
/// </summary>
/// <param name="sysfs">The root of sysfs; tests give another.</param>
/// <param name="procfs">The root of procfs; tests give another.</param>
internal sealed class HostMemoryReader(string sysfs = "/sys", string procfs = "/proc")
{
    /// <summary>Most bytes of a file that are read.</summary>
    internal const int LongestFile = 16 << 10;

    /// <summary>This host's.</summary>
    internal static readonly HostMemoryReader Host = new();

    private const int MostNodes = 1024;
    private const ulong MostKibibytes = 1UL << 42;

    /// <summary>How it is now. Never throws.</summary>
    internal HostReading Read()
    {
        MemoryStall? stall = Text(Path.Combine(procfs, "pressure/memory"), out _) is { } pressure ? ReadStall(pressure) : null;
        if (ReadNodes(out string? problem) is { } nodes)
        {
            return new HostReading(nodes, stall);
        }

        string whole = Path.Combine(procfs, "meminfo");
        string? text = Text(whole, out string? why);
        if (text is not null && ReadNode(0, text) is { } all)
        {
            // A kernel without NUMA has no nodes: that is how it is, and no problem.
            return new HostReading([all], stall, problem is null ? null : $"{problem}; {whole} is used, without nodes");
        }

        why ??= $"{whole} does not say MemTotal and MemFree in kB";
        return new HostReading([], stall, problem is null ? why : $"{problem}; {why}");
    }

    /// <summary>
    /// The averages of ten seconds of /proc/pressure/memory: <c>some avg10=0.12 avg60=0.05 avg300=0.01 total=1234</c>, and <c>full</c>
    /// alike. Null when it is not that.
    /// </summary>
    internal static MemoryStall? ReadStall(string text)
    {
        double? some = null, full = null;
        foreach (string line in text.Split('\n'))
        {
            string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (words is ["some", ..])
            {
                some ??= Average(words);
            }
            else if (words is ["full", ..])
            {
                full ??= Average(words);
            }
        }

        return some is { } share ? new MemoryStall(share, Math.Min(full ?? 0, share)) : null;
    }

    /// <summary>
    /// One node's meminfo (<c>Node 0 MemFree: 123 kB</c>), or that of the host (<c>MemFree: 123 kB</c>). A node has no MemAvailable, so it
    /// is counted here for both alike. Null when it is not that.
    /// </summary>
    internal static NodeReading? ReadNode(int node, string text)
    {
        ulong? total = null, free = null;
        ulong reclaimable = 0;
        foreach (string line in text.Split('\n'))
        {
            string[] words = line.Split([' ', ':'], StringSplitOptions.RemoveEmptyEntries);
            int at = words is ["Node", ..] ? 2 : 0;
            if (at + 3 != words.Length || words[^1] is not "kB"
                || !ulong.TryParse(words[at + 1], NumberStyles.None, CultureInfo.InvariantCulture, out ulong kib) || kib > MostKibibytes)
            {
                continue;
            }

            switch (words[at])
            {
                case "MemTotal":
                    total ??= kib * 1024;
                    break;
                case "MemFree":
                    free ??= kib * 1024;
                    break;
                case "Inactive(file)" or "SReclaimable":
                    reclaimable = Math.Min(reclaimable + (kib * 1024), MostKibibytes * 1024);
                    break;
                default:
                    break;
            }
        }

        return total is > 0 and { } all && free is { } left ? new NodeReading(node, all, Math.Min(all, left + reclaimable)) : null;
    }

    // Null without a problem: this kernel has no nodes.
    private List<NodeReading>? ReadNodes(out string? problem)
    {
        problem = null;
        string folder = Path.Combine(sysfs, "devices/system/node"), online = Path.Combine(folder, "online");
        if (!Directory.Exists(folder))
        {
            return null;
        }

        if (Text(online, out problem) is not { } list)
        {
            return null;
        }

        if (!NumberSet.TryParse(list, MostNodes, out IReadOnlyList<int> numbers) || numbers.Count == 0)
        {
            problem = $"{online} is not a list of nodes";
            return null;
        }

        List<NodeReading> nodes = [];
        foreach (int number in numbers)
        {
            string file = Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"node{number}"), "meminfo");
            if (Text(file, out problem) is not { } text)
            {
                return null;
            }

            // A node with processors and no memory says so: it has nothing that could run short.
            if (ReadNode(number, text) is { } node)
            {
                nodes.Add(node);
            }
            else if (!SaysNoMemory(text))
            {
                problem = $"{file} does not say MemTotal and MemFree in kB";
                return null;
            }
        }

        problem = nodes.Count > 0 ? null : $"{online} names no node with memory";
        return nodes.Count > 0 ? nodes : null;
    }

    private static bool SaysNoMemory(string text) => text.Split('\n')
        .Any(line => line.Split([' ', ':'], StringSplitOptions.RemoveEmptyEntries) is [.., "MemTotal", "0", "kB"]);

    private static double? Average(string[] words)
    {
        const string Name = "avg10=";
        string? word = words.FirstOrDefault(w => w.StartsWith(Name, StringComparison.Ordinal));
        return word is not null
            && double.TryParse(word[Name.Length..], NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double percent)
            && percent is >= 0 and <= 100
                ? percent / 100
                : null;
    }

    private static string? Text(string file, out string? problem)
    {
        problem = null;
        try
        {
            // Files of procfs and sysfs have no length before they are read.
            using FileStream stream = new(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite, bufferSize: 0);
            byte[] buffer = new byte[LongestFile];
            int count = stream.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false);
            return Encoding.ASCII.GetString(buffer, 0, count);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            problem = $"{file} cannot be read: {cause.Message}";
            return null;
        }
    }
}
