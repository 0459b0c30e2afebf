using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>The rules of vnodes, their memory and distances, and of the CPU topology.</summary>
internal static class NumaValidation
{
    internal static void CheckNuma(VmSpec spec, NumaSpec numa, SpecComplaints check)
    {
        if (numa.Auto)
        {
            check.Require(numa.Count is null or (>= 1 and <= SpecValidation.MaxVnodes), "numa.count",
                $"{numa.Count ?? 0} vnodes, expected 1 to {SpecValidation.MaxVnodes}");
            check.Require(numa.Count is null || spec.Memory / NumaSplit.Unit >= (ulong)Math.Max(0, numa.Count.Value), "numa.count",
                $"{spec.Memory.ToString()} is less than 2MiB for each of {numa.Count ?? 0} vnodes");
            check.Require(
                numa.Fit == FitWish.Exact, "numa.fit", "is for vnodes that are given: a topology that follows the host needs no fitting");
            check.Require(numa.Vnodes.Count == 0, "numa.vnodes", "is given, so the topology cannot follow the host as well");
            check.Require(numa.Distances is null, "numa.distances", "is given without vnodes: distances follow the host, too");
            check.Require(numa.Latencies is null, "numa.latencies", "is given without vnodes: latencies follow the host, too");
            check.Require(numa.Bandwidths is null, "numa.bandwidths", "is given without vnodes: bandwidths follow the host, too");
            return;
        }

        check.Require(numa.Count is null, "numa.count", "is for a topology without vnodes: leave it out");
        check.Require(numa.Vnodes.Count is >= 1 and <= SpecValidation.MaxVnodes, "numa.vnodes",
            $"{numa.Vnodes.Count} vnodes, expected 1 to {SpecValidation.MaxVnodes}");
        Dictionary<int, int> owner = [];
        UInt128 total = 0, most = 0;
        for (int i = 0; i < numa.Vnodes.Count; i++)
        {
            VnodeSpec vnode = numa.Vnodes[i];
            string path = $"numa.vnodes[{i}]";
            total += vnode.Memory.Bytes;
            most += Math.Max(vnode.Memory, vnode.MaxMemory ?? default);
            CheckVnode(vnode, path, check);
            foreach (int cpu in vnode.Cpus)
            {
                check.Require(
                    cpu >= 0 && cpu < spec.Cpus, path + ".cpus", $"CPU {cpu} does not exist: the VM has {spec.Cpus} (0-{spec.Cpus - 1})");
                check.Require(owner.TryAdd(cpu, i) || owner[cpu] == i, path + ".cpus", $"CPU {cpu} is already in vnode {owner[cpu]}");
            }
        }

        if (numa.Vnodes.Count > 0)
        {
            check.Require(total == spec.Memory.Bytes, "numa.vnodes[*].memory",
                $"the vnodes have {FormatTotal(total)} together, the VM has {spec.Memory.ToString()}");
            check.Require(
                most <= SpecValidation.MaxMemory.Bytes, "numa.vnodes", $"can grow to {FormatTotal(most)} together, expected at most 16TiB");
            List<int> missing = [];
            for (int cpu = 0; cpu < Math.Min(spec.Cpus, SpecValidation.MaxCpus); cpu++)
            {
                if (!owner.ContainsKey(cpu))
                {
                    missing.Add(cpu);
                }
            }

            check.Require(missing.Count == 0, "numa.vnodes[*].cpus", $"no vnode has CPU {string.Join(',', missing)}");
        }

        CheckDistances(numa, check);
        CheckMatrix(numa, numa.Latencies, "numa.latencies", SpecValidation.MaxLatency, check);
        CheckMatrix(numa, numa.Bandwidths, "numa.bandwidths", SpecValidation.MaxBandwidth, check);
    }

    private static void CheckVnode(VnodeSpec vnode, string path, SpecComplaints check)
    {
        check.Require(vnode.Memory == 0 || vnode.Memory >= SpecValidation.MinMemory, path + ".memory",
            $"{vnode.Memory.ToString()}, expected 0 or at least 2MiB");
        check.Require(vnode.Memory > 0 || vnode.Cpus.Count > 0, path, "has neither CPUs nor memory");
        bool knownSize = vnode.PageSize.Bytes is 4096 or 2UL << 20 or 1UL << 30;
        check.Require(knownSize, path + ".pageSize", $"{vnode.PageSize.ToString()}, expected 4KiB, 2MiB or 1GiB");
        check.Require(!knownSize || vnode.Memory % vnode.PageSize == 0, path + ".memory",
            $"{vnode.Memory.ToString()} is not a multiple of its page size {vnode.PageSize.ToString()}");
        if (vnode.MinMemory is not null || vnode.MaxMemory is not null)
        {
            CheckHotMemory(vnode, path + ".", check);
        }

        check.Require(vnode.Policy != VnodePolicy.Auto || vnode.HostNodes.Count == 0, path + ".policy",
            "is auto, which takes no hostNodes: use strict, preferred or interleave");
        check.Require(vnode.Policy == VnodePolicy.Auto || vnode.HostNodes.Count > 0, path + ".hostNodes",
            $"is missing: policy {Names.Of(vnode.Policy)} needs it");
        check.Require(vnode.Policy != VnodePolicy.Preferred || vnode.HostNodes.Count <= 1, path + ".hostNodes",
            "has several nodes: policy preferred takes one");
    }

    internal static void CheckHotMemory(VnodeSpec vnode, string prefix, SpecComplaints check)
    {
        ByteSize min = vnode.BootMemory, max = vnode.MaxMemory ?? vnode.Memory;
        check.Require(
            min <= vnode.Memory, prefix + "minMemory", $"{min.ToString()} is more than the {vnode.Memory.ToString()} it starts with");
        check.Require(min == 0 || min >= SpecValidation.MinMemory, prefix + "minMemory", $"{min.ToString()}, expected 0 or at least 2MiB");
        check.Require(
            max >= vnode.Memory, prefix + "maxMemory", $"{max.ToString()} is less than the {vnode.Memory.ToString()} it starts with");
        check.Require(max <= SpecValidation.MaxMemory, prefix + "maxMemory", $"{max.ToString()}, expected at most 16TiB");
        if (min <= vnode.Memory && vnode.Memory <= max && max <= SpecValidation.MaxMemory)
        {
            ByteSize block = vnode.HotBlock;
            check.Require(min % 4096 == 0, prefix + "minMemory", $"{min.Bytes} bytes is not a multiple of 4KiB");
            check.Require((vnode.Memory - min) % block == 0, prefix + (vnode.MinMemory is null ? "memory" : "minMemory"),
                $"{min.ToString()} and the {vnode.Memory.ToString()} it starts with are not whole blocks of {block.ToString()} apart");
            check.Require((max - vnode.Memory) % block == 0, prefix + (vnode.MaxMemory is null ? "memory" : "maxMemory"),
                $"{max.ToString()} and the {vnode.Memory.ToString()} it starts with are not whole blocks of {block.ToString()} apart");
        }
    }

    private static void CheckDistances(NumaSpec numa, SpecComplaints check)
    {
        if (numa.Distances is not { } rows)
        {
            return;
        }

        int count = numa.Vnodes.Count;
        check.Require(rows.Count == count, "numa.distances", $"{rows.Count} rows, expected one for each of {count} vnodes");
        for (int i = 0; i < rows.Count; i++)
        {
            check.Require(
                rows[i].Count == count, $"numa.distances[{i}]", $"{rows[i].Count} numbers, expected one for each of {count} vnodes");
            for (int j = 0; j < rows[i].Count; j++)
            {
                int distance = rows[i][j];
                check.Require(i == j ? distance == 10 : distance is > 10 and <= 255, $"numa.distances[{i}][{j}]", i == j
                    ? $"{distance}, the distance of a vnode to itself is 10"
                    : $"{distance}, expected 11 to 254, or 255 for unreachable");
                // ACPI allows others; Linux's scheduler complains of them (kernel/sched/topology.c, sched_init_numa), and a spec that has
                // them is a slip.
                check.Require(
                    j >= i || j >= count || rows[j].Count <= i || rows[j][i] == distance, $"numa.distances[{i}][{j}]",
                    $"{distance}, but vnode {j} has {(j < rows.Count && i < rows[j].Count ? rows[j][i] : 0)} to vnode {i}: distances are "
                        + "the same in both directions");
            }
        }
    }

    private static void CheckMatrix(NumaSpec numa, IReadOnlyList<IReadOnlyList<int>>? rows, string path, int most, SpecComplaints check)
    {
        if (rows is null)
        {
            return;
        }

        int count = numa.Vnodes.Count;
        check.Require(rows.Count == count, path, $"{rows.Count} rows, expected one for each of {count} vnodes");
        for (int i = 0; i < rows.Count; i++)
        {
            check.Require(rows[i].Count == count, $"{path}[{i}]", $"{rows[i].Count} numbers, expected one for each of {count} vnodes");
            for (int j = 0; j < rows[i].Count; j++)
            {
                check.Require(rows[i][j] >= 1 && rows[i][j] <= most, $"{path}[{i}][{j}]", $"{rows[i][j]}, expected 1 to {most}");
            }
        }
    }

    /// <summary>The vnode that a device names. How many there are of a topology that follows the host is known at the start only.</summary>
    internal static void CheckNearness(VmSpec spec, int? vnode, string path, SpecComplaints check)
    {
        int count = spec.Numa is { Auto: true } numa ? numa.Count ?? SpecValidation.MaxVnodes : spec.EffectiveVnodes.Count;
        check.Require(vnode is null || (vnode >= 0 && vnode < count), path + ".vnode",
            $"there is no vnode {vnode ?? 0}: the VM has {count} (0-{count - 1})");
    }

    /// <summary>Without a topology each vnode is a socket, and all sockets have the APIC ids of the largest.</summary>
    internal static void CheckSockets(VmSpec spec, SpecComplaints check)
    {
        int sockets = 0, most = 1;
        foreach (VnodeSpec vnode in spec.EffectiveVnodes)
        {
            sockets += vnode.Cpus.Count > 0 ? 1 : 0;
            most = Math.Max(most, vnode.Cpus.Count);
        }

        uint greatest = new CpuShape(Math.Max(1, sockets), 1, most, 1).GreatestApicId;
        check.Require(
            most > SpecValidation.MaxCpus || greatest <= SpecValidation.MaxApicId, "numa.vnodes", $"need APIC ids up to {greatest}, there "
                + $"are {SpecValidation.MaxApicId}: give the vnodes as many CPUs as each other, or a topology");
    }

    internal static void CheckTopology(VmSpec spec, TopologySpec topology, SpecComplaints check)
    {
        int vnodes = 0;
        foreach (VnodeSpec vnode in spec.EffectiveVnodes)
        {
            vnodes += vnode.Cpus.Count > 0 ? 1 : 0;
        }

        if (topology.Shape(spec.Cpus, vnodes) is not { } shape)
        {
            check.Require(false, "topology", $"{topology.Sockets?.ToString() ?? "some"} sockets of {topology.Dies} dies of "
                + $"{topology.Cores?.ToString() ?? "some"} cores of {topology.Threads} threads are not {spec.Cpus} CPUs");
            return;
        }

        if (spec.Numa is not { Auto: false } numa)
        {
            return;
        }

        for (int i = 0; i < numa.Vnodes.Count; i++)
        {
            HashSet<int> cpus = [.. numa.Vnodes[i].Cpus], dies = [];
            foreach (int cpu in cpus)
            {
                int die = cpu / shape.CpusOfDie;
                if (!dies.Add(die))
                {
                    continue;
                }

                int other = Enumerable.Range(die * shape.CpusOfDie, shape.CpusOfDie).FirstOrDefault(c => !cpus.Contains(c), -1);
                if (other >= 0)
                {
                    check.Require(false, $"numa.vnodes[{i}].cpus", $"has CPU {cpu} but not CPU {other} of the same die (CPUs "
                        + $"{die * shape.CpusOfDie}-{((die + 1) * shape.CpusOfDie) - 1}): a die lies in one vnode");
                    break;
                }
            }
        }
    }

    private static string FormatTotal(UInt128 total) => total <= ulong.MaxValue ? new ByteSize((ulong)total).ToString() : $"{total}B";
}
