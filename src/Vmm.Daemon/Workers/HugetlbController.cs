using System.Globalization;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>
/// The files of the hugetlb controller in one control group: <c>hugetlb.2MB.max</c> (v2) or <c>hugetlb.2MB.limit_in_bytes</c> (v1) for each
/// size of huge page the host has. Huge pages are in no other count: without this a worker that was taken over could take the host's whole
/// pool.
/// </summary>
internal static class HugetlbController
{
    private const string Prefix = "hugetlb.";

    /// <summary>Allows what the spec asks of each size, and nothing of the others.</summary>
    /// <param name="group">Folder of the group.</param>
    /// <param name="v2">Which version's files.</param>
    /// <param name="spec">The VM.</param>
    /// <returns>Null, or which size of the spec the host does not count.</returns>
    /// <exception cref="IOException">The kernel does not take it.</exception>
    internal static string? Write(string group, bool v2, VmSpec spec)
    {
        Dictionary<ulong, ulong> wanted = Wanted(spec);
        HashSet<ulong> counted = [];
        string suffix = v2 ? ".max" : ".limit_in_bytes";
        foreach (string path in Directory.Exists(group) ? Directory.GetFiles(group, Prefix + "*" + suffix) : [])
        {
            string size = Path.GetFileName(path)[Prefix.Length..^suffix.Length]; // 2MB, 1GB; 2MB.rsvd counts reservations
            string unit = size.EndsWith(".rsvd", StringComparison.Ordinal) ? size[..^".rsvd".Length] : size;
            if (Bytes(unit) is { } bytes)
            {
                File.WriteAllText(path, wanted.GetValueOrDefault(bytes).ToString(CultureInfo.InvariantCulture));
                counted.Add(bytes);
            }
        }

        ulong[] uncounted = [.. wanted.Keys.Except(counted)];
        return uncounted.Length == 0
            ? null
            : $"no controller hugetlb counts pages of {string.Join(", ", uncounted.Select(b => new ByteSize(b).ToString()))}";
    }

    /// <summary>Bytes of huge pages that the VM may have, by the size of the page.</summary>
    private static Dictionary<ulong, ulong> Wanted(VmSpec spec) => spec.EffectiveVnodes
        .Where(v => (ulong)v.PageSize > ByteSize.BytesPerPage)
        .GroupBy(v => (ulong)v.PageSize)
        .ToDictionary(g => g.Key, g => g.Aggregate(0UL, (sum, v) => sum + Math.Max(v.Memory, v.MaxMemory ?? default)));

    private static ulong? Bytes(string unit)
    {
        int shift = unit.Length < 3 ? 0 : unit[^2..] switch { "KB" => 10, "MB" => 20, "GB" => 30, _ => 0 };
        return shift > 0
            && ulong.TryParse(unit.AsSpan(0, unit.Length - 2), NumberStyles.None, CultureInfo.InvariantCulture, out ulong count)
            ? count << shift
            : null;
    }
}
