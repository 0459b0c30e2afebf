using System.Globalization;

namespace Vmm.Memory;

/// <summary>One NUMA node of the host.</summary>
/// <param name="Id">Node number.</param>
/// <param name="Cpus">Its CPUs; empty for a memory-only node.</param>
/// <param name="TotalBytes">RAM.</param>
/// <param name="FreeBytes">Free RAM when it was read.</param>
/// <param name="Distances">To every node, in node order.</param>
public sealed record HostNode(int Id, IReadOnlyList<int> Cpus, ulong TotalBytes, ulong FreeBytes, IReadOnlyList<int> Distances)
{
    /// <summary>What programs could get: free memory, and what the kernel holds only as cache of files.</summary>
    public ulong AvailableBytes { get; init; } = FreeBytes;
}

/// <summary>The host's NUMA nodes as sysfs tells them. A kernel without NUMA has one node with all CPUs and memory.</summary>
public sealed class HostTopology
{
    private const int MaxNumber = 65536;

    private HostTopology(IReadOnlyList<HostNode> nodes, bool hasNuma)
    {
        Nodes = nodes;
        HasNuma = hasNuma;
    }

    /// <summary>No knowledge of the host, for a VM that asks for no place on it.</summary>
    public static HostTopology Unknown { get; } = new([], hasNuma: false);

    /// <summary>A host with these nodes, for what is to be tried out without it.</summary>
    /// <param name="nodes">The nodes, ascending by number.</param>
    public static HostTopology Of(IReadOnlyList<HostNode> nodes) => new(nodes, hasNuma: true);

    /// <summary>The nodes, ascending by number.</summary>
    public IReadOnlyList<HostNode> Nodes { get; }

    /// <summary>False on a kernel without NUMA support: memory policies do not exist there.</summary>
    public bool HasNuma { get; }

    /// <summary>True when the host has a node of this number.</summary>
    public bool HasNode(int id)
    {
        for (int i = 0; i < Nodes.Count; i++)
        {
            if (Nodes[i].Id == id)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>
    /// The CPUs that are near the memory of some nodes: their own; those of the nearest node that has any, when they have none.
    /// </summary>
    public IReadOnlyList<int> CpusNear(IReadOnlyList<int> nodes)
    {
        List<HostNode> homes = [.. Nodes.Where(n => nodes.Contains(n.Id))];
        List<int> cpus = [.. homes.SelectMany(n => n.Cpus).Order()];
        return cpus.Count > 0 || homes.Count == 0
            ? cpus
            : Nodes.Where(n => n.Cpus.Count > 0).MinBy(n => homes.Min(h => Distance(h, n, Nodes)))?.Cpus ?? [];
    }

    /// <summary>
    /// How far it is between two of <paramref name="all"/> nodes, as ACPI counts: 10 to itself; 20 when the host does not say.
    /// </summary>
    public static int Distance(HostNode from, HostNode to, IReadOnlyList<HostNode> all)
    {
        if (from.Id == to.Id)
        {
            return 10;
        }

        // The kernel lists one distance per online node, in node order.
        for (int i = 0; i < all.Count; i++)
        {
            if (all[i].Id == to.Id && i < from.Distances.Count && from.Distances.Count == all.Count)
            {
                return from.Distances[i];
            }
        }

        return 20;
    }

    /// <summary>Reads the topology; tests give other roots.</summary>
    /// <exception cref="InvalidDataException">sysfs says something that cannot be understood; the file is named.</exception>
    public static HostTopology Read(string sysfs = "/sys", string procfs = "/proc")
    {
        string folder = Path.Combine(sysfs, "devices/system/node");
        if (!Directory.Exists(folder))
        {
            (ulong total, ulong free, ulong available) = Memory(Path.Combine(procfs, "meminfo"));
            return new HostTopology(
                [new HostNode(0, Numbers(Path.Combine(sysfs, "devices/system/cpu/online")), total, free, [10])
                {
                    AvailableBytes = available
                }],
                hasNuma: false);
        }

        List<HostNode> nodes = [];
        foreach (int id in Numbers(Path.Combine(folder, "online")))
        {
            string node = Path.Combine(folder, $"node{id}");
            (ulong total, ulong free, ulong available) = Memory(Path.Combine(node, "meminfo"));
            nodes.Add(new HostNode(id, Numbers(Path.Combine(node, "cpulist")), total, free, Distances(Path.Combine(node, "distance")))
            {
                AvailableBytes = available
            });
        }

        return nodes.Count > 0
            ? new HostTopology(nodes, hasNuma: true)
            : throw new InvalidDataException($"{folder}/online names no node.");
    }

    private static IReadOnlyList<int> Numbers(string file) =>
        NumberSet.TryParse(Text(file), MaxNumber, out IReadOnlyList<int> numbers)
            ? numbers
            : throw new InvalidDataException($"{file}: '{Text(file).Trim()}' is not a list of numbers.");

    private static IReadOnlyList<int> Distances(string file)
    {
        List<int> distances = [];
        foreach (string word in Text(file).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries))
        {
            distances.Add(int.TryParse(word, NumberStyles.None, CultureInfo.InvariantCulture, out int distance)
                ? distance
                : throw new InvalidDataException($"{file}: '{word}' is not a distance."));
        }

        return distances;
    }

    private static (ulong Total, ulong Free, ulong Available) Memory(string file)
    {
        ulong total = 0, free = 0, cache = 0;
        foreach (string line in Text(file).Split('\n'))
        {
            // "Node 0 MemFree:  123 kB" or "MemFree:  123 kB"; a node has no MemAvailable, so it is counted here.
            string[] words = line.Split([' ', ':'], StringSplitOptions.RemoveEmptyEntries);
            int at = words is ["Node", ..] ? 2 : 0;
            if (at + 1 >= words.Length || !ulong.TryParse(words[at + 1], NumberStyles.None, CultureInfo.InvariantCulture, out ulong kib))
            {
                continue;
            }

            switch (words[at])
            {
                case "MemTotal":
                    total = kib * 1024;
                    break;
                case "MemFree":
                    free = kib * 1024;
                    break;
                case "Active(file)" or "Inactive(file)" or "SReclaimable":
                    cache += kib * 1024;
                    break;
                default:
                    break;
            }
        }

        return (total, free, Math.Min(total, free + cache));
    }

    private static string Text(string file)
    {
        try
        {
            return File.ReadAllText(file);
        }
        catch (IOException cause)
        {
            throw new InvalidDataException($"{file} cannot be read: {cause.Message}", cause);
        }
    }
}
