using System.Globalization;

namespace Vmm.Perf;

/// <summary>
/// (h) What a dependent load costs a vCPU in its own vnode's memory and in another's. QEMU's microvm has no virtual NUMA: no peer.
/// </summary>
internal sealed class LatencyBench(Bench bench, string program)
{
    internal void Run(Report report)
    {
        // Which node memory really is on only differs where the host has two.
        int[] nodes = [.. Directory.GetDirectories("/sys/devices/system/node", "node*")
            .Select(d => int.Parse(Path.GetFileName(d).AsSpan(4), CultureInfo.InvariantCulture))
            .Order()];
        int near = nodes[0], far = nodes[^1];
        string spec = Path.GetTempFileName();
        try
        {
            File.WriteAllText(spec, Row.Invariant($$"""
                boot: {kernel: "{{bench.Guest("latency")}}", cmdline: "mib=64"}
                numa:
                  vnodes:
                    - {cpus: 0, memory: 256MiB, hostNodes: {{near}}}
                    - {memory: 256MiB, hostNodes: {{far}}}
                """));
            List<double> local = [], remote = [];
            for (int round = 0; round < (bench.Short ? 1 : 7); round++)
            {
                using Launch run = Launch.Start([program, "run", "--quiet", "--no-serial-input", "-f", spec], TimeSpan.FromSeconds(60));
                IReadOnlyDictionary<string, string> result = run.WaitForEnd() == 0
                    ? Bench.Result(run, "latency")
                    : throw run.Failed("the latency guest failed");
                local.Add(Nanoseconds(result["node0"]));
                remote.Add(Nanoseconds(result["node1"]));
            }

            double ratio = Statistics.Median(remote) / Statistics.Median(local);
            string where = near == far ? "this host has one node: both lie on it" : Row.Invariant($"host nodes {near} and {far}");
            report.Note(Row.Invariant($"(h) a dependent load in 64 MiB, median of {local.Count}: own vnode {Statistics.Median(local):0.0} "
                + $"ns, other vnode {Statistics.Median(remote):0.0} ns, ratio {ratio:0.00} ({where})"));
        }
        finally
        {
            File.Delete(spec);
        }
    }

    private double Nanoseconds(string hundredths) => double.Parse(hundredths, CultureInfo.InvariantCulture) / 100 / bench.TscKhz * 1e6;
}
