using System.Globalization;

namespace Vmm.Perf;

/// <summary>(b) virtio-blk requests a second of the block micro-guest over one raw file; QEMU with the best of its engines.</summary>
internal sealed class BlockBench(Bench bench)
{
    private static readonly DiskMode[] s_peerModes =
    [
        new("io_uring", true), new("native", true, "native"), new("threads", true, "threads"),
        new("io_uring+iothread", true, "io_uring", true), new("native+iothread", true, "native", true),
        new("io_uring", false), new("threads", false, "threads"), new("io_uring+iothread", false, "io_uring", true),
    ];

    /// <summary>Over a file of the disk that the repository lies on: that disk is part of the figures.</summary>
    internal void Run(Report report)
    {
        string disk = bench.ScratchFile("perf-disk.raw", 256L << 20);
        try
        {
            foreach (bool direct in bench.Short ? [true] : (bool[])[true, false])
            {
                CompareAll(report, disk, direct, direct ? "direct" : "page cache");
            }
        }
        finally
        {
            File.Delete(disk);
        }
    }

    /// <summary>Over a file in memory, which answers at once: what is left is the cost of the VMM itself.</summary>
    internal void RunInMemory(Report report)
    {
        // Without a name from here on: nothing is left behind, however this process ends.
        using FileStream file = Bench.Scratch(Path.Combine(Memory, Row.Invariant($"vmm-perf-{Environment.ProcessId}.raw")), 256L << 20);
        File.Delete(file.Name);
        string disk = Row.Invariant($"/proc/{Environment.ProcessId}/fd/{file.SafeFileHandle.DangerousGetHandle()}");
        bool direct = Environment.OSVersion.Version >= new Version(6, 6); // tmpfs knows O_DIRECT since then
        CompareAll(report, disk, direct, direct ? "in memory, direct" : "in memory");
        if (direct && !bench.Short)
        {
            CompareAll(report, disk, false, "in memory, page cache");
        }
    }

    /// <summary>Where files lie in memory.</summary>
    internal const string Memory = "/dev/shm";

    private void CompareAll(Report report, string disk, bool direct, string name)
    {
        foreach (string operation in (string[])["read", "write"])
        {
            foreach (int depth in (int[])[1, 32])
            {
                Compare(report, disk, direct, operation, depth, name);
            }
        }
    }

    private void Compare(Report report, string disk, bool direct, string operation, int depth, string name)
    {
        List<(Contender Contender, DiskMode Mode, List<double> Rates)> entries = [];
        foreach (Contender contender in bench.Contenders)
        {
            IEnumerable<DiskMode> modes = contender is Vmmctl
                ? [new DiskMode(direct ? "direct" : "buffered", direct)]
                : s_peerModes.Where(m => m.Direct == direct);
            entries.AddRange(modes.Select(m => (contender, m, new List<double>())));
        }

        for (int round = 0; round < (bench.Short ? 1 : bench.AgainstItself ? 10 : 3); round++)
        {
            for (int i = 0; i < entries.Count; i++)
            {
                (Contender contender, DiskMode mode, List<double> rates) = entries[(round + i) % entries.Count];
                rates.Add(Once(contender, mode, disk, operation, depth));
            }
        }

        (Contender other, DiskMode best, List<double> peer) = entries.Where(e => e.Contender != bench.Ours)
            .MaxBy(e => Statistics.Median(e.Rates));
        List<double> ours = entries.Where(e => e.Contender == bench.Ours).Select(e => e.Rates).FirstOrDefault() ?? [];
        report.Add(new Row(
            $"(b) 4 KiB random {operation}, depth {depth}, {name}", "requests/s", $"{other.Name} {best.Name}", ours, peer, AtLeast: 1.2));
    }

    private double Once(Contender contender, DiskMode mode, string disk, string operation, int depth)
    {
        string cmdline = Row.Invariant($"mode=bench op={operation} depth={depth} size=4096 "
            + $"seconds={(bench.Short || disk.StartsWith("/proc/", StringComparison.Ordinal) ? 1 : 2)} tsc_khz={bench.TscKhz}");
        using Launch run = Launch.Start(contender.Command(bench.Guest("blk"), cmdline, disk, mode), TimeSpan.FromSeconds(60));
        int code = run.WaitForEnd();
        if (code != contender.Success)
        {
            throw run.Failed($"exit code {code}, not {contender.Success}");
        }

        IReadOnlyDictionary<string, string> result = Bench.Result(run, "blk");
        return double.Parse(result["requests"], CultureInfo.InvariantCulture) * 1e6 / double.Parse(
            result["us"], CultureInfo.InvariantCulture);
    }
}
