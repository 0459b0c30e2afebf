using System.Diagnostics;
using Vmm.Contracts.Rest;

namespace Vmm.Perf;

/// <summary>
/// (m) A VM of 1 GiB, 900 MiB of it touched, saved into a folder in memory and restored from it, each as a job of the daemon from the
/// request to its end; QEMU writes its migration stream through a pipe into a file beside it, and comes from there.
/// </summary>
/// <param name="bench">Settings.</param>
/// <param name="program">vmmd.</param>
internal sealed class SaveBench(Bench bench, string program)
{
    private const long TouchedBytes = 900L << 20;

    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(2);

    internal void Run(Report report)
    {
        string folder = Path.Combine(BlockBench.Memory, Row.Invariant($"vmm-perf-save-{Environment.ProcessId}"));
        _ = Directory.CreateDirectory(folder);
        try
        {
            if (bench.Ours is not null && !bench.AgainstItself)
            {
                new FirstExitBench(bench, folder).Run(report);
            }

            Dictionary<Contender, List<double>> save = bench.Empty(), restore = bench.Empty();
            bench.InTurn(bench.Short ? 1 : 7, contender =>
            {
                (double out_, double in_) = contender is Vmmctl ? Ours(folder) : Peer(contender, folder);
                save[contender].Add(out_);
                restore[contender].Add(in_);
            });
            report.Add(bench.Row("(m) save a VM with 900 MiB touched, file in memory", "ms", save) with { AtMost = 0.5 });
            report.Add(bench.Row("(m) restore it", "ms", restore) with { AtMost = 0.25 });
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private (double Save, double Restore) Ours(string folder)
    {
        using RunningDaemon daemon = new(program, pool: 2);
        VmmClient client = daemon.Client;
        _ = daemon.Launch("saved", bench.Guest("dirty"), memoryMiB: 1024, cmdline: Cmdline);
        long begin = Stopwatch.GetTimestamp();
        while (client.StatsAsync("saved", default).GetAwaiter().GetResult().ResidentBytes < TouchedBytes)
        {
            RequireTime(begin, "a guest that touches its memory");
            Thread.Sleep(20);
        }

        string place = Path.Combine(folder, "saved");
        double save = Time(client, () => client.SaveAsync("saved", place, default));
        double restore = Time(client, () => client.RestoreAsync(place, default));
        _ = daemon.Own(client.ShowAsync("saved", default).GetAwaiter().GetResult());
        daemon.Forget("saved");
        Directory.Delete(place, recursive: true);
        return (save, restore);
    }

    private static double Time(VmmClient client, Func<Task<JobInfo>> begins)
    {
        long begin = Stopwatch.GetTimestamp();
        JobInfo job = begins().GetAwaiter().GetResult();
        while (job.State == JobState.Running)
        {
            RequireTime(begin, job.Kind);
            Thread.Sleep(2);
            job = client.JobAsync(job.Id, default).GetAwaiter().GetResult();
        }

        return job.State == JobState.Done ? Stopwatch.GetElapsedTime(begin).TotalMilliseconds
            : throw new InvalidOperationException($"{job.Kind}: {job.Error?.Detail}");
    }

    private (double Save, double Restore) Peer(Contender contender, string folder)
    {
        string socket = Path.Combine(folder, "qmp"), file = Path.Combine(folder, "stream");
        string[] command =
        [
            .. contender.Command(bench.Guest("dirty"), Cmdline).Select(word => word is "128M" ? "1024M" : word),
            "-qmp", $"unix:{socket},server=on,wait=off",
        ];
        double save;
        using (Launch run = Launch.Start(command, s_limit))
        {
            run.WaitFor("READY");
            using QmpClient qmp = new(socket);
            _ = qmp.Do("stop");
            _ = qmp.Do("migrate-set-parameters", """{"max-bandwidth":1000000000000}""");
            long begin = Stopwatch.GetTimestamp();
            _ = qmp.Do("migrate", $$"""{"uri":"exec:cat > {{file}}"}""");
            while (qmp.Do("query-migrate").GetProperty("status").GetString() is var status and not "completed")
            {
                RequireTime(begin, $"migration that is {status}");
                Thread.Sleep(2);
            }

            save = Stopwatch.GetElapsedTime(begin).TotalMilliseconds;
            _ = qmp.Do("quit");
            _ = run.WaitForEnd();
        }

        File.Delete(socket);
        long start = Stopwatch.GetTimestamp();
        using Launch back = Launch.Start([.. command, "-incoming", $"exec:cat {file}"], s_limit);
        using QmpClient incoming = new(socket);
        while (incoming.Do("query-status").GetProperty("status").GetString() is "inmigrate")
        {
            RequireTime(start, "an incoming migration");
            Thread.Sleep(2);
        }

        _ = incoming.Do("cont");
        double restore = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
        _ = incoming.Do("quit");
        _ = back.WaitForEnd();
        File.Delete(file);
        File.Delete(socket);
        return (save, restore);
    }

    private string Cmdline => Row.Invariant($"mib={TouchedBytes >> 20} seconds=0 rate=1000 tsc_khz={bench.TscKhz}");

    private static void RequireTime(long begin, string what)
    {
        if (Stopwatch.GetElapsedTime(begin) > s_limit)
        {
            throw new InvalidOperationException($"{what} did not end within {s_limit.TotalMinutes:0} minutes");
        }
    }
}
