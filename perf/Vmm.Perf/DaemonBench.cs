using System.Diagnostics;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;

namespace Vmm.Perf;

/// <summary>
/// (d) A VM through the daemon and its ready workers, against the start of a QEMU microvm; what an idle VM holds; many of them at once.
/// </summary>
internal sealed class DaemonBench(Bench bench, string program)
{
    internal void Run(Report report)
    {
        string idle = bench.Guest("idle");
        Dictionary<Contender, List<double>> first = bench.Empty(), dirty = bench.Empty();
        using (RunningDaemon daemon = new(program, pool: 4))
        {
            int number = 0;
            for (int i = 0; i < 3; i++)
            {
                _ = Once(bench.Contenders[0]); // unmeasured: page cache, and the daemon's own first requests
            }

            bench.InTurn(bench.Short ? 5 : 25, contender => first[contender].Add(Once(contender)));
            bench.InTurn(bench.Short ? 2 : 5,
                contender => dirty[contender].Add(contender is Vmmctl ? Ours(daemon, $"dirty{number++}", idle) : Peer(contender, idle)));

            double Once(Contender contender)
            {
                Thread.Sleep(300); // The pool is full again, and the machine quiet.
                return contender is Vmmctl ? ThroughTheDaemon(daemon, $"vm{number++}", idle) : FromTheFork(contender, idle);
            }
        }

        report.Add(bench.Row("(d) create to first guest exit through the daemon; qemu: start to first exit", "ms", first) with
        {
            AtMost = 1.0 / 3
        });
        report.Add(bench.Row("(d) private dirty of an idle VM's worker", "MB", dirty) with { AtMost = 1 });
        Crowd(report, idle, bench.Short ? 20 : 200);
    }

    private static double ThroughTheDaemon(RunningDaemon daemon, string name, string elf)
    {
        long begin = Stopwatch.GetTimestamp();
        _ = daemon.Launch(name, elf, memoryMiB: 128);
        daemon.WaitForExit(name);
        double first = Stopwatch.GetElapsedTime(begin).TotalMilliseconds;
        daemon.Forget(name);
        return first;
    }

    private static double FromTheFork(Contender contender, string elf)
    {
        long begin = Stopwatch.GetTimestamp();
        using Launch run = Perf.Launch.Start(contender.Command(elf, ""), TimeSpan.FromSeconds(30));
        run.WaitForFirstByte();
        return Stopwatch.GetElapsedTime(begin).TotalMilliseconds;
    }

    private static double Ours(RunningDaemon daemon, string name, string elf)
    {
        VmInfo vm = daemon.Launch(name, elf, memoryMiB: 128);
        Thread.Sleep(500);
        double dirty = ProcessFigures.PrivateDirty(vm.WorkerProcessId!.Value) * 1024 / 1e6;
        daemon.Forget(name);
        return dirty;
    }

    private static double Peer(Contender contender, string elf)
    {
        using Launch run = Perf.Launch.Start(contender.Command(elf, ""), TimeSpan.FromSeconds(30));
        run.WaitFor("READY");
        Thread.Sleep(500);
        return run.Memory().PrivateDirty * 1024 / 1e6;
    }

    /// <summary>Many idle VMs on one machine: how long they take to come, what they hold, what they cost while nothing happens.</summary>
    private void Crowd(Report report, string elf, int count)
    {
        using RunningDaemon daemon = new(program, pool: 4);
        List<int> workers = [];
        long begin = Stopwatch.GetTimestamp();
        for (int i = 0; i < count; i++)
        {
            workers.Add(daemon.Launch($"crowd{i}", elf, memoryMiB: 32).WorkerProcessId!.Value);
        }

        double seconds = Stopwatch.GetElapsedTime(begin).TotalSeconds;
        Thread.Sleep(bench.Short ? 500 : 3000);
        long before = workers.Sum(ProcessFigures.CpuTicks);
        long from = Stopwatch.GetTimestamp();
        Thread.Sleep(bench.Short ? 1000 : 10_000);
        double cpu = (workers.Sum(ProcessFigures.CpuTicks) - before) / 100.0 / Stopwatch.GetElapsedTime(from).TotalSeconds;
        double shared = workers.Sum(w => ProcessFigures.Proportional(w) / 1024.0),
            dirty = workers.Sum(w => ProcessFigures.PrivateDirty(w) / 1024.0);
        int running = daemon.Client.ListAsync(CancellationToken.None).GetAwaiter().GetResult().Vms.Count(v => v.State == VmState.Running);
        report.Note(
            Row.Invariant(
                $"(d) {count} idle micro-VMs of 32 MiB: {running} running, started in {seconds:0.0} s ({seconds * 1000 / count:0} ms "
                + $"each); all workers together: proportional set {shared:0} MiB, private dirty {dirty:0} MiB ({dirty / count:0.0} MiB "
                + $"each), {cpu * 100:0.0} % of one CPU while idle"));
        if (running != count)
        {
            throw new InvalidOperationException($"{count - running} of {count} VMs do not run");
        }
    }
}
