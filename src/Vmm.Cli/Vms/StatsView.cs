using System.Globalization;
using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm stats</c>: counters once, or what they grew by every second.</summary>
internal static class StatsView
{
    internal static async Task<int> ShowAsync(DaemonSession session, string name, bool watch, CancellationToken cancellation)
    {
        WorkerStats? before = null;
        for (long line = 0; ; line++)
        {
            WorkerStats now = await session.Client.StatsAsync(name, cancellation).ConfigureAwait(false);
            if (session.IsJson)
            {
                session.Json(now, RestJson.Default.WorkerStats);
            }
            else if (watch)
            {
                Rates(session.Out, now, before, line);
            }
            else
            {
                Totals(session.Out, now);
            }

            if (!watch)
            {
                return ExitCodes.Done;
            }

            before = now;
            await session.Out.FlushAsync(cancellation).ConfigureAwait(false);
            await Task.Delay(1000, cancellation).ConfigureAwait(false);
        }
    }

    private static void Totals(TextWriter output, WorkerStats stats)
    {
        output.WriteLine(
            $"cpu {Number(stats.CpuMilliseconds)} ms, resident {Size((ulong)stats.ResidentBytes)}, exits {Number(stats.Exits)}");
        if (stats.Throttling is { Periods: > 0 } throttling)
        {
            output.WriteLine($"cpu quota used up in {Number(throttling.ThrottledPeriods)} of {Number(throttling.Periods)} periods, waited "
                + $"{Number(throttling.ThrottledMilliseconds)} ms");
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

    /// <summary>One line a second, headings every twenty, as vmstat(8) does it; the first line is of the time since the start.</summary>
    private static void Rates(TextWriter output, WorkerStats now, WorkerStats? before, long line)
    {
        if (line % 20 == 0)
        {
            output.WriteLine($"{"CPU ms",8} {"RESIDENT",12} {"EXITS",10} {"READS",8} {"READ",12} {"WRITES",8} {"WRITTEN",12}");
        }

        output.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{now.CpuMilliseconds - (before?.CpuMilliseconds ?? 0),8} {Size((ulong)now.ResidentBytes),12} "
                + $"{now.Exits - (before?.Exits ?? 0),10} {Grown(d => d.ReadRequests),8} {Size((ulong)Grown(d => d.ReadBytes)),12} "
                + $"{Grown(d => d.WriteRequests),8} {Size((ulong)Grown(d => d.WrittenBytes)),12}"));

        // A VM that was started anew between two lines begins at zero.
        long Grown(Func<DiskStats, long> counter) => Math.Max(0, now.Disks.Sum(counter) - (before?.Disks.Sum(counter) ?? 0));
    }
}
