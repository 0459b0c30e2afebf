using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Placement.Tests;

/// <summary>
/// Random sound specs with vnodes, some without CPUs, some without memory, with distances, HMAT values and packed CPUs now and then.
/// </summary>
internal static class RandomTopologies
{
    internal static VmSpec Make(Random random, ByteSize most)
    {
        int vnodes = random.Next(1, 9), packed = random.Next(3);
        (int cores, int threads) = packed == 0 ? (1, 1) : (random.Next(1, 4), random.Next(1, 3));
        int dies = random.Next(Math.Max(1, vnodes / 2), vnodes + 3); // vnodes beyond the first get whole dies, some none
        int[] homeOfDie = [.. Enumerable.Range(0, dies).Select(d => d == 0 ? 0 : random.Next(vnodes))];
        int cpus = dies * cores * threads;
        int unit = (int)(most / ByteSize.MiB(2) / (ulong)vnodes);
        VnodeSpec[] nodes = [.. Enumerable.Range(0, vnodes).Select(k =>
        {
            int[] own = [.. Enumerable.Range(0, cpus).Where(c => homeOfDie[c / (cores * threads)] == k)];
            bool empty = k > 0 && own.Length > 0 && random.Next(5) == 0;
            ByteSize memory = new(empty ? 0 : (ulong)random.Next(k == 0 ? 16 : 1, Math.Max(17, unit)) << 21);
            return new VnodeSpec
            {
                Cpus = own,
                Memory = memory,
                MaxMemory = random.Next(4) == 0 && memory > 0 ? new ByteSize(memory + ((ulong)random.Next(1, 64) << 21)) : null
            };
        })];
        return new VmSpec
        {
            Cpus = cpus,
            Memory = new ByteSize(nodes.Aggregate(0UL, (sum, n) => sum + n.Memory)),
            Boot = new BootSpec { Kernel = "k" },
            Disks = [.. Enumerable.Range(0, random.Next(4)).Select(i => new DiskSpec { Path = $"d{i}", Vnode = random.Next(vnodes) })],
            Topology = packed == 0 ? null : Pack(random, dies, cores, threads),
            Numa = new NumaSpec
            {
                Vnodes = nodes,
                Distances = random.Next(3) > 0 ? Symmetric(random, vnodes) : null,
                Latencies = random.Next(2) > 0 ? Matrix(random, vnodes, random.Next(2) == 0 ? 500 : 1_000_000) : null,
                Bandwidths = random.Next(2) > 0 ? Matrix(random, vnodes, random.Next(2) == 0 ? 60_000 : 10_000_000) : null,
            },
        };
    }

    private static TopologySpec Pack(Random random, int dies, int cores, int threads)
    {
        int perSocket = random.Next(2) == 0 ? 1 : Enumerable.Range(1, dies).Where(d => dies % d == 0).MaxBy(_ => random.Next());
        return new TopologySpec
        {
            Sockets = random.Next(2) == 0 ? dies / perSocket : null,
            Dies = perSocket,
            Cores = cores,
            Threads = threads
        };
    }

    private static IReadOnlyList<int>[] Symmetric(Random random, int size)
    {
        int[][] rows = [.. Enumerable.Range(0, size).Select(_ => new int[size])];
        for (int i = 0; i < size; i++)
        {
            rows[i][i] = 10;
            for (int j = 0; j < i; j++)
            {
                rows[i][j] = rows[j][i] = random.Next(11, 256);
            }
        }

        return rows;
    }

    private static IReadOnlyList<int>[] Matrix(Random random, int size, int most) =>
        [.. Enumerable.Range(0, size)
            .Select(_ => (IReadOnlyList<int>)[.. Enumerable.Range(0, size).Select(_ => random.Next(1, most + 1))])];
}
