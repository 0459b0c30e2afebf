using System.Diagnostics;

namespace Vmm.Perf;

/// <summary>
/// (a) From the fork to the first serial byte of the guest (its first exit) and to the end of the process; memory of an idle VM.
/// </summary>
internal sealed class StartBench(Bench bench)
{
    internal void Run(Report report)
    {
        Dictionary<Contender, List<double>> first = bench.Empty(), end = bench.Empty(), peak = bench.Empty(), dirty = bench.Empty();
        string hello = bench.Guest("hello"), idle = bench.Guest("idle");

        // One round unmeasured: the page cache holds both programs afterwards.
        foreach (Contender contender in bench.Contenders)
        {
            _ = Once(contender, hello);
        }

        bench.InTurn(bench.Short ? 5 : 25, contender =>
        {
            (double toFirst, double toEnd) = Once(contender, hello);
            first[contender].Add(toFirst);
            end[contender].Add(toEnd);
        });
        bench.InTurn(bench.Short ? 2 : 5, contender =>
        {
            (double resident, double unshared) = Idle(contender, idle);
            peak[contender].Add(resident);
            dirty[contender].Add(unshared);
        });

        report.Add(bench.Row("(a) start to first guest exit", "ms", first) with { AtMost = 0.6 });
        report.Add(bench.Row("(a) start to end of process", "ms", end));
        report.Add(bench.Row("(a) peak resident, idle guest", "MB", peak));
        report.Add(bench.Row("(a) private dirty, idle guest", "MB", dirty) with { OursAtMost = 8 });
    }

    private static (double First, double End) Once(Contender contender, string elf)
    {
        string[] command = contender.Command(elf, "");
        long begin = Stopwatch.GetTimestamp();
        using Launch run = Launch.Start(command, TimeSpan.FromSeconds(30));
        run.WaitForFirstByte();
        double first = Stopwatch.GetElapsedTime(begin).TotalMilliseconds;
        int code = run.WaitForEnd();
        double end = Stopwatch.GetElapsedTime(begin).TotalMilliseconds;
        return code == contender.Success && run.Text.Contains("HELLO", StringComparison.Ordinal)
            ? (first, end)
            : throw run.Failed($"exit code {code}, not {contender.Success}");
    }

    private static (double Peak, double Dirty) Idle(Contender contender, string elf)
    {
        using Launch run = Launch.Start(contender.Command(elf, ""), TimeSpan.FromSeconds(30));
        run.WaitFor("READY");
        Thread.Sleep(500); // Start-up work of other threads settles.
        (double peak, double dirty) = run.Memory();
        return (peak * 1024 / 1e6, dirty * 1024 / 1e6);
    }
}
