using System.Globalization;

namespace Vmm.Perf;

/// <summary>(c) What one port write costs the guest, against the C loop of native-shim/bench and against QEMU.</summary>
internal sealed class ExitBench(Bench bench)
{
    internal void Run(Report report)
    {
        string exits = bench.Guest("exits");
        int count = bench.Short ? 5000 : 20000;
        Dictionary<Contender, List<double>> samples = bench.Empty();
        List<double> floor = [];
        for (int round = 0; round < (bench.Short ? 3 : 9); round++)
        {
            floor.Add(bench.PioLoop(count).NanosecondsPerExit / 1000);
            bench.InTurn(1, contender => samples[contender].Add(Once(contender, exits, count)), round);
        }

        report.Add(bench.Row("(c) one PIO exit, CPL 3", "us", samples));
        if (bench.Ours is { } ours)
        {
            report.Add(new Row("(c) one PIO exit, CPL 3", "us", "C loop", samples[ours], floor, AtMost: 1.05));
        }
        else
        {
            report.Add(new Row("(c) one PIO exit, CPL 3", "us", "C loop", [], floor));
        }
    }

    private double Once(Contender contender, string elf, int count)
    {
        using Launch run = Launch.Start(
            contender.Command(elf, Row.Invariant($"n={count} tsc_khz={bench.TscKhz}")), TimeSpan.FromSeconds(60));
        int code = run.WaitForEnd();
        IReadOnlyDictionary<string, string> result = Bench.Result(run, "exits");
        if (code != contender.Success)
        {
            throw run.Failed($"exit code {code}, not {contender.Success}");
        }

        return double.Parse(result["cycles"], CultureInfo.InvariantCulture) / bench.TscKhz * 1000 / count;
    }
}
