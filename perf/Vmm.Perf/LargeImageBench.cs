using System.Diagnostics;
using Vmm.Storage;

namespace Vmm.Perf;

/// <summary>(d) An image of 1 TiB: how long it takes to open, and what its tables take of memory when requests go everywhere.</summary>
internal sealed class LargeImageBench(Bench bench, string folder)
{
    private const double MostMilliseconds = 5, MostKiB = 2048;
    private const int RequestBytes = 4096;

    /// <summary>Adds the rows.</summary>
    internal void Run(Report report, string where)
    {
        if (!bench.Wants($"(d) qcow2 of 1 TiB, {where}"))
        {
            return;
        }

        string image = Path.Combine(folder, "large.qcow2");
        Bench.Run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image, "1T");
        List<double> opening = [], memory = [], allocated = [];
        for (int round = 0; round < (bench.Short ? 2 : 7); round++)
        {
            long begin = Stopwatch.GetTimestamp();
            IDiskBackend disk = DiskEngine.Chain(image);
            opening.Add(Stopwatch.GetElapsedTime(begin).TotalMilliseconds);
            using DiskEngine engine = new(disk, 32, RequestBytes);
            double before = Dirty();
            DiskRate rate = engine.Run(BlockKind.Read, bench.Short ? 2000 : 50_000, step: 0);
            memory.Add(Math.Max(0, Dirty() - before));
            // Its tables have their memory by now.
            allocated.Add(engine.Run(BlockKind.Read, bench.Short ? 2000 : 50_000, step: 0).Allocated);
        }

        File.Delete(image);
        report.Add(new Row($"(d) qcow2 of 1 TiB, opened, {where}", "ms", "-", opening, [], OursAtMost: MostMilliseconds));
        report.Add(new Row($"(d) qcow2 of 1 TiB, memory that reads everywhere take, {where}", "KiB", "-", memory, [], OursAtMost: MostKiB));
        report.Add(new Row(
            $"(d) qcow2 of 1 TiB, reads everywhere, allocated, {where}", "bytes/request", "-", allocated, [], OursAtMost: 1));
    }

    // All that the process wrote to: the runtime's own growth counts against us.
    private static double Dirty() => ProcessFigures.PrivateDirty(Environment.ProcessId);
}
