using System.Diagnostics;
using System.Globalization;
using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm stats</c>: counters once, or how fast they grow, line by line.</summary>
internal static class StatsView
{
    /// <param name="session">Where to ask.</param>
    /// <param name="name">The VM.</param>
    /// <param name="interval">How often to look; null: once.</param>
    /// <param name="cancellation">Ends it.</param>
    internal static async Task<int> ShowAsync(DaemonSession session, string name, TimeSpan? interval, CancellationToken cancellation)
    {
        WorkerStats? before = null;
        long since = 0;
        for (long line = 0; ;)
        {
            WorkerStats now = await session.Client.StatsAsync(name, cancellation).ConfigureAwait(false);
            TimeSpan passed = Stopwatch.GetElapsedTime(since);
            since = Stopwatch.GetTimestamp();
            if (session.IsJson)
            {
                session.Json(now, RestJson.Default.WorkerStats);
            }
            else if (interval is null)
            {
                Totals(session.Out, now);
            }
            else if (before is not null)
            {
                session.Out.WriteLine(Rates(now, before, passed));
            }

            if (interval is not { } pause)
            {
                return ExitCodes.Done;
            }

            // Headings every twenty lines, as vmstat(8) does it.
            if (!session.IsJson && line++ % 20 == 0)
            {
                session.Out.WriteLine(Headings);
            }

            before = now;
            await session.Out.FlushAsync(cancellation).ConfigureAwait(false);
            await Task.Delay(pause, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Per second, but for what is resident; CPU in percent of one.</summary>
    internal static string Headings { get; } =
        $"{"CPU %",6} {"RESIDENT",11} {"EXITS",8} {"READS",8} {"READ",11} {"WRITES",8} {"WRITTEN",11} {"RECEIVED",11} {"SENT",11}";

    private static void Totals(TextWriter output, WorkerStats stats)
    {
        output.WriteLine(
            $"cpu {Number(stats.CpuMilliseconds)} ms, resident {Size((ulong)stats.ResidentBytes)}, exits {Number(stats.Exits)}");
        if (stats.Throttling is { Periods: > 0 } throttling)
        {
            output.WriteLine($"cpu quota used up in {Number(throttling.ThrottledPeriods)} of {Number(throttling.Periods)} periods, waited "
                + $"{Number(throttling.ThrottledMilliseconds)} ms");
        }

        if (stats.Paging is { } paging)
        {
            output.WriteLine($"guest memory resident {Size(paging.ResidentBytes)} of at most {Size(paging.LimitBytes)}, swapped "
                + $"{Size(paging.SwappedBytes)}, faults {Number((long)paging.Faults)}, pages out {Number((long)paging.PagesOut)}, in "
                + $"{Number((long)paging.PagesIn)}{(paging.Stopped is { } why ? $"; no page goes out: {why}" : "")}");
        }

        if (stats.Restore is { } restore)
        {
            output.WriteLine($"lazy restore: {Size(restore.LeftBytes)} of {Size(restore.TotalBytes)} left after "
                + $"{Number(restore.Milliseconds)} ms, {Size(restore.AwaitedBytes)} were waited for");
        }

        foreach (DeviceStatsKind kind in DeviceStatsKind.All)
        {
            if (kind.Read(stats) is { Count: > 0 } devices)
            {
                Devices(output, kind, devices);
            }
        }
    }

    private static void Devices(TextWriter output, DeviceStatsKind kind, IReadOnlyList<DeviceCounters> devices)
    {
        Table table = new(
            [kind.Kind.ToUpperInvariant(), .. devices[0].Counters.Select(c => c.Column), .. devices[0].Notes.Select(note => note.Column)]);
        foreach (DeviceCounters device in devices)
        {
            table.Add([device.Device, .. device.Counters.Select(Cell), .. device.Notes.Select(note => note.Text)]);
        }

        table.Write(output);
    }

    private static string Cell(CounterValue counter) => counter.Value is not { } value ? "-"
        : counter.IsBytes ? Size((ulong)value)
        : Number(value);

    /// <summary>What each counter grew by in a second, measured between two looks; a VM that was started anew between them begins at
    /// zero.</summary>
    internal static string Rates(WorkerStats now, WorkerStats before, TimeSpan passed)
    {
        return string.Create(CultureInfo.InvariantCulture,
            $"{Rate(s => s.CpuMilliseconds) / 10.0,6:0.0} {Size((ulong)now.ResidentBytes),11} {Rate(s => s.Exits),8} "
                + $"{Rate(s => s.Disks.Sum(d => d.ReadRequests)),8} {Bytes(s => s.Disks.Sum(d => d.ReadBytes)),11} "
                + $"{Rate(s => s.Disks.Sum(d => d.WriteRequests)),8} {Bytes(s => s.Disks.Sum(d => d.WrittenBytes)),11} "
                + $"{Bytes(s => s.Nets.Sum(n => n.ReceivedBytes)),11} {Bytes(s => s.Nets.Sum(n => n.SentBytes)),11}");

        long Rate(Func<WorkerStats, long> counter)
        {
            long grown = counter(now) - counter(before);
            return (long)Math.Round((grown < 0 ? counter(now) : grown) / Math.Max(passed.TotalSeconds, 0.001));
        }

        string Bytes(Func<WorkerStats, long> counter) => Size((ulong)Rate(counter));
    }
}
