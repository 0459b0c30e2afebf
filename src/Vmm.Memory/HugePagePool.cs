using System.Globalization;

namespace Vmm.Memory;

/// <summary>Huge pages of one size on one host node.</summary>
/// <param name="Node">Number of the node.</param>
/// <param name="PageBytes">Size of a page.</param>
/// <param name="Total">Pages in the pool.</param>
/// <param name="Free">Pages nobody has.</param>
public sealed record HugePagePool(int Node, ulong PageBytes, ulong Total, ulong Free)
{
    /// <summary>
    /// All pools as sysfs tells them, by node and size; those of a kernel without NUMA count as node 0's. Tests give another root.
    /// </summary>
    public static IReadOnlyList<HugePagePool> Read(string sysfs = "/sys")
    {
        List<HugePagePool> pools = [];
        string nodes = Path.Combine(sysfs, "devices/system/node");
        if (!Directory.Exists(nodes))
        {
            Add(pools, 0, Path.Combine(sysfs, "kernel/mm/hugepages"));
            return pools;
        }

        foreach (string folder in Directory.EnumerateDirectories(nodes, "node*"))
        {
            if (int.TryParse(Path.GetFileName(folder).AsSpan(4), NumberStyles.None, CultureInfo.InvariantCulture, out int node))
            {
                Add(pools, node, Path.Combine(folder, "hugepages"));
            }
        }

        return [.. pools.OrderBy(p => p.Node).ThenBy(p => p.PageBytes)];
    }

    private static void Add(List<HugePagePool> pools, int node, string folder)
    {
        foreach (string pool in Directory.Exists(folder) ? Directory.EnumerateDirectories(folder, "hugepages-*kB") : [])
        {
            if (ulong.TryParse(
                Path.GetFileName(pool).AsSpan()["hugepages-".Length..^2], NumberStyles.None, CultureInfo.InvariantCulture, out ulong kib))
            {
                pools.Add(new HugePagePool(
                    node, kib * 1024, Count(Path.Combine(pool, "nr_hugepages")), Count(Path.Combine(pool, "free_hugepages"))));
            }
        }
    }

    private static ulong Count(string file) => File.Exists(file)
        && ulong.TryParse(File.ReadAllText(file).Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out ulong count) ? count : 0;
}
