using System.Diagnostics;
using System.Globalization;
using Vmm.Storage.Replicas;

namespace Vmm.Perf;

/// <summary>
/// (r) What replication costs in storage: a cut of 1 % of a disk with what changed known, beside one that has to hash all of it; bytes sent
/// and bytes written at the recovery site for each byte that changed.
/// </summary>
internal sealed class ReplicaBench(Bench bench, string folder)
{
    private const int Extent = 64 << 10, Page = 4096, Every = 100;

    private static readonly Guid s_owner = new(1, 2, 3, new byte[8]);

    private int Extents => bench.Short ? 4 << 10 : 16 << 10; // 256 MiB, 1 GiB

    private int Rounds => bench.Short ? 1 : 5;

    internal void Run(Report report)
    {
        foreach (bool noise in (bool[])[false, true])
        {
            string what = noise ? "random data" : "data of 4 bits a byte";
            if (bench.Wants($"(r) cut of 1 %, {what}"))
            {
                Measure(report, noise, what);
            }
        }
    }

    private void Measure(Report report, bool noise, string what)
    {
        string place = Directory.CreateDirectory(Path.Combine(folder, Row.Invariant($"replica-{Environment.ProcessId}"))).FullName;
        try
        {
            string disk = Path.Combine(place, "disk.img");
            Random random = new(1);
            using (FileStream file = File.Create(disk))
            {
                for (int i = 0; i < Extents; i++)
                {
                    file.Write(Data(random, Extent, noise));
                }
            }

            ReplicaSpool spool = ReplicaSpool.Open(Path.Combine(place, "spool"), Path.Combine(place, "trees"));
            using ReplicaFolder replica = ReplicaFolder.Create(Path.Combine(place, "replica"), s_owner);
            Guid parent = Guid.Empty;
            (double first, _) = Cut(spool, disk, ExtentSet.All("the first point"), ref parent);
            _ = Send(spool, replica);
            List<double> known = [], all = [], sent = [], written = [], arranged = [];
            double changed = (double)Extents / Every * Extent;
            for (int round = 0; round < Rounds; round++)
            {
                Write(disk, random, noise);
                ExtentSet ranges = ExtentSet.Of(Enumerable.Range(0, Extents / Every).Select(i => new ExtentRange((ulong)i * Every, 1)));
                (double seconds, double bytes) = Cut(spool, disk, ranges, ref parent);
                known.Add(seconds);
                sent.Add(bytes / changed);
                long before = WrittenBytes();
                arranged.Add(Send(spool, replica));
                written.Add((WrittenBytes() - before) / changed);
                all.Add(Cut(spool, disk, ExtentSet.All("a full pass"), ref parent).Seconds);
                _ = Send(spool, replica);
            }

            report.Add(new Row($"(r) cut of 1 %, {what}", "s", "a pass over all hashes", known, all));
            report.Add(new Row($"(r) bytes sent for a byte of extents that changed, {what}", "", "", sent, []));
            string atReplica = $"(r) bytes written at the replica for such a byte, {what}";
            report.Add(new Row(atReplica, "", "goal of issue 18", written, [], OursAtMost: 1.1));
            report.Add(new Row($"(r) taking and arranging 1 %, {what}", "s", "", arranged, []));
            report.Note(Row.Invariant($"(r) {what}: the first cut of {Extents >> 4} MiB took {first:0.00} s"));
        }
        finally
        {
            Directory.Delete(place, recursive: true);
        }
    }

    private static (double Seconds, double Bytes) Cut(ReplicaSpool spool, string disk, ExtentSet changed, ref Guid parent)
    {
        Guid id = Guid.NewGuid();
        CutWish wish = new() { Owner = s_owner, Point = id, Parent = parent, Time = DateTimeOffset.UtcNow };
        long begin = Stopwatch.GetTimestamp();
        SpooledPoint made = CutMaker.Run([new CutDisk("disk0", disk, "raw", changed)], wish, spool);
        parent = id;
        return (Stopwatch.GetElapsedTime(begin).TotalSeconds, made.Bytes);
    }

    private static double Send(ReplicaSpool spool, ReplicaFolder replica)
    {
        SpooledPoint point = spool.Points[0];
        long begin = Stopwatch.GetTimestamp();
        ReplicaIntake intake = replica.BeginIntake(point.Point) ?? throw new InvalidOperationException("the point is there already");
        byte[] part = new byte[8 << 20];
        using (FileStream delta = ReplicaSpool.Open(point, "disk0"))
        {
            for (int read; (read = delta.Read(part)) > 0;)
            {
                _ = intake.TryAppend("disk0", intake.Arrived[0], part.AsSpan(0, read), out _);
            }
        }

        _ = intake.Seal();
        double seconds = Stopwatch.GetElapsedTime(begin).TotalSeconds;
        spool.Remove(point.Point.Id);
        return seconds;
    }

    // A page of every hundredth extent.
    private void Write(string disk, Random random, bool noise)
    {
        using FileStream file = new(disk, FileMode.Open, FileAccess.Write);
        for (int i = 0; i < Extents / Every; i++)
        {
            file.Position = ((long)i * Every * Extent) + (random.Next(Extent / Page) * Page);
            file.Write(Data(random, Page, noise));
        }
    }

    private static byte[] Data(Random random, int bytes, bool noise)
    {
        byte[] data = new byte[bytes];
        random.NextBytes(data);
        for (int i = 0; i < bytes && !noise; i++)
        {
            data[i] &= 15;
        }

        return data;
    }

    // What this process has given to file systems on disks (proc(5), write_bytes).
    private static long WrittenBytes()
    {
        const string Name = "write_bytes:";
        string line = File.ReadLines("/proc/self/io").First(each => each.StartsWith(Name, StringComparison.Ordinal));
        return long.Parse(line.AsSpan(Name.Length), CultureInfo.InvariantCulture);
    }
}
