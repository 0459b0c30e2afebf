using System.Globalization;
using System.Text.RegularExpressions;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Perf;

/// <summary>
/// (d) qcow2 without a machine before it: our engine in this process, and qemu-img bench, in turn over the same image; the same pattern of
/// 4 KiB requests. And our engine beside itself: raw, qcow2, long chains.
/// </summary>
internal sealed partial class DisksBench(Bench bench, string folder)
{
    private const ulong Step = (1 << 20) + 8192 + 65536; // another cluster with each request, and another place in it
    private const int RequestBytes = 4096, MiB = 1 << 20;

    private static readonly string[] s_peerEngines = ["io_uring", "native", "threads"];

    private int Rounds => bench.Short ? 1 : 5;

    private int SizeMiB => bench.Short ? 256 : 1024;

    /// <summary>Runs all of it in a folder of its own, which is gone afterwards.</summary>
    /// <param name="report">Gets the rows.</param>
    /// <param name="where">Where the folder lies, for the rows.</param>
    internal void Run(Report report, string where)
    {
        Directory.CreateDirectory(folder);
        try
        {
            string full = Image("full.qcow2");
            Create(full);
            Fill(full);
            foreach (BlockKind kind in (BlockKind[])[BlockKind.Read, BlockKind.Write])
            {
                foreach (int depth in (int[])[1, 32])
                {
                    string what = Row.Invariant($"(d) qcow2, clusters that are there, 4 KiB {Verb(kind)}, depth {depth}, {where}");
                    Compare(report, what, kind, depth, depth == 1 ? 1 : 1.2, _ => full);
                }

                string inOrder = $"(d) qcow2, clusters that are there, 1 MiB {Verb(kind)} in order, depth 4, {where}";
                Compare(report, inOrder, kind, 4, 1, _ => full, MiB);
            }

            CompareNew(report, "qcow2, new clusters", where, Fresh);
            CompareNew(report, "qcow2, new clusters over a base", where, Over(full));
            CompareNew(
                report, "qcow2 with parts of 4 KiB, new clusters over a base", where, Over(full, "-o", "cluster_size=128k,extended_l2=on"));
            CompareNew(report, "a new qcow2 over a base, as each makes it", where, OurOver(full), Over(full));
            CompareWithRaw(report, full, where);
            NoteFloor(report);
            CompareChains(report, full, where);
            new LargeImageBench(bench, folder).Run(report, where);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static string Verb(BlockKind kind) => kind == BlockKind.Read ? "read" : "write";

    // As many requests as there are clusters of 64 KiB, so that nearly all of them need a new one.
    private void CompareNew(
        Report report, string what, string where, Func<int, string> image, Func<int, string>? peerImage = null)
    {
        int count = Math.Min(Count(32), SizeMiB * 16);
        string row = $"(d) {what}, 4 KiB write, depth 32, {where}";
        Compare(report, row, BlockKind.Write, 32, 3, image, count: count, peerImage: peerImage);
    }

    // The best of QEMU's engines is the peer.
    private void Compare(
        Report report, string what, BlockKind kind, int depth, double goal, Func<int, string> image, int bytes = RequestBytes,
        int? count = null, Func<int, string>? peerImage = null)
    {
        if (!bench.Wants(what))
        {
            return;
        }

        List<DiskRate> ours = [];
        Dictionary<string, List<DiskRate>> peers = new(StringComparer.Ordinal);
        foreach (string engine in s_peerEngines)
        {
            peers.Add(engine, []);
        }

        int requests = count ?? Count(depth, bytes), number = 0;
        for (int round = 0; round < Rounds; round++)
        {
            for (int turn = 0; turn <= s_peerEngines.Length; turn++)
            {
                int who = (round + turn) % (s_peerEngines.Length + 1);
                bool isOurs = who == s_peerEngines.Length;
                string path = (isOurs ? image : peerImage ?? image)(number++);
                if (isOurs)
                {
                    ours.Add(Engine(DiskEngine.Chain(ChainOf(path)), kind, depth, requests, bytes, oneBuffer: true));
                }
                else
                {
                    peers[s_peerEngines[who]].Add(Peer(path, kind, depth, requests, s_peerEngines[who], bytes));
                }
            }
        }

        (string best, List<DiskRate> rates) = peers.MaxBy(peer => Statistics.Median(Rates(peer.Value)));
        report.Add(new Row(what, "requests/s", $"qemu-img bench {best}", Rates(ours), Rates(rates), AtLeast: goal));
        report.Add(new Row(
            $"{what}: processor time", "us/request", $"qemu-img bench {best}", [.. ours.Select(rate => rate.Processor)],
            [.. rates.Select(rate => rate.Processor)]));
    }

    private static List<double> Rates(List<DiskRate> rates) => [.. rates.Select(rate => rate.PerSecond)];

    // What a request costs before any storage: the rows above stand on it.
    private void NoteFloor(Report report)
    {
        string what = "(d) a disk without content, 4 KiB read, depth 32";
        if (!bench.Wants(what))
        {
            return;
        }

        DiskRate rate = Engine(new NullDiskBackend(1ul << 40), BlockKind.Read, 32, 10 * Count(32));
        report.Note(Row.Invariant($"{what}: {rate.PerSecond:0} requests/s, {rate.Processor:0.00} us of processor time each"));
    }

    private void CompareWithRaw(Report report, string full, string where)
    {
        string raw = Image("full.raw");
        Bench.Scratch(raw, (long)SizeMiB * MiB).Dispose();

        foreach (BlockKind kind in (BlockKind[])[BlockKind.Read, BlockKind.Write])
        {
            CompareWithFio(report, raw, kind, where);
            string what = $"(d) our qcow2 beside our raw, 4 KiB {Verb(kind)}, depth 32, {where}";
            if (!bench.Wants(what))
            {
                continue;
            }

            List<double> qcow2 = [], plain = [];
            for (int round = 0; round < 2 * Rounds; round++)
            {
                qcow2.Add(Engine([full], kind, 32, Count(32)));
                plain.Add(Engine(DiskEngine.Raw(raw), kind, 32, Count(32)).PerSecond);
            }

            report.Add(new Row(what, "requests/s", "raw", qcow2, plain, AtLeast: 0.95));
        }

        CompareWithLog(report, raw, where);
        File.Delete(raw);
    }

    // What a write costs more when it is logged. Both begin with nothing hot and nothing marked.
    private void CompareWithLog(Report report, string raw, string where)
    {
        foreach (int depth in (int[])[1, 32])
        {
            string what = Row.Invariant($"(d) raw with a change log, 4 KiB write anywhere, depth {depth}, {where}");
            if (!bench.Wants(what))
            {
                continue;
            }

            List<DiskRate> logged = [], plain = [];
            for (int round = 0; round < 2 * Rounds; round++)
            {
                LoggedDisk disk = new(DiskEngine.Raw(raw), Image("changes.log"));
                logged.Add(Engine(disk, BlockKind.Write, depth, Count(depth), step: 0));
                plain.Add(Engine(DiskEngine.Raw(raw), BlockKind.Write, depth, Count(depth), step: 0));
            }

            report.Add(new Row(what, "requests/s", "no log", Rates(logged), Rates(plain), AtLeast: 0.97));
            report.Add(new Row($"{what}: processor time", "us/request", "no log", [.. logged.Select(rate => rate.Processor)],
                [.. plain.Select(rate => rate.Processor)]));
        }

        string floor = "(d) a disk without content and a change log, 4 KiB write, depth 32";
        if (bench.Wants(floor))
        {
            DiskRate bare = Engine(new NullDiskBackend(1ul << 30), BlockKind.Write, 32, 10 * Count(32));
            DiskRate with = Engine(
                new LoggedDisk(new NullDiskBackend(1ul << 30), Image("changes.log")), BlockKind.Write, 32, 10 * Count(32));
            report.Note(Row.Invariant(
                $"{floor}: {with.Processor:0.000} us of processor time each, {bare.Processor:0.000} without the log"));
        }
    }

    // Anywhere on the file, since fio knows no pattern with steps that is ours.
    private void CompareWithFio(Report report, string raw, BlockKind kind, string where)
    {
        if (!Bench.Output("fio", "--version").StartsWith("fio", StringComparison.Ordinal))
        {
            report.Note("(d) our raw beside fio: skipped: fio is not installed");
            return;
        }

        foreach (int depth in (int[])[1, 32])
        {
            string what = Row.Invariant($"(d) our raw, 4 KiB {Verb(kind)} anywhere, depth {depth}, {where}");
            if (!bench.Wants(what))
            {
                continue;
            }

            List<double> ours = [], fio = [];
            for (int round = 0; round < 2 * Rounds; round++)
            {
                ours.Add(Engine(DiskEngine.Raw(raw), kind, depth, Count(depth), step: 0).PerSecond);
                string output = Bench.Run("fio", "--name=x", $"--filename={raw}", "--ioengine=io_uring", "--direct=1", "--bs=4k",
                    kind == BlockKind.Read ? "--rw=randread" : "--rw=randwrite", $"--iodepth={Text(depth)}", "--norandommap",
                    $"--number_ios={Text(Count(depth))}", "--output-format=terse", "--terse-version=3");
                string[] fields = output.Trim().Split(';');
                // IOPS (fio(1), "TERSE OUTPUT")
                fio.Add(double.Parse(fields[kind == BlockKind.Read ? 7 : 48], CultureInfo.InvariantCulture));
            }

            report.Add(new Row(what, "requests/s", "fio io_uring", ours, fio, AtLeast: 0.95));
        }
    }

    private void CompareChains(Report report, string full, string where)
    {
        List<string> chain = [full];
        for (int i = 1; i < 16; i++)
        {
            string top = Image($"chain{i}.qcow2");
            Bench.Run("qemu-img", "create", "-q", "-f", "qcow2", "-b", chain[0], "-F", "qcow2", top);
            chain.Insert(0, top);
        }

        Compare(report, $"(d) chain of 16, 4 KiB read, depth 32, {where}", BlockKind.Read, 32, 1.2, _ => chain[0]);
        if (!bench.Wants($"(d) chain of 4 beside one image, of 16, 4 KiB read, depth 32, {where}"))
        {
            return;
        }

        string[] short1 = [full], long16 = [.. chain], middle = [.. chain.TakeLast(4)];
        List<double> one = [], four = [], sixteen = [];
        for (int round = 0; round < 2 * Rounds; round++)
        {
            one.Add(Engine(short1, BlockKind.Read, 32, Count(32)));
            four.Add(Engine(middle, BlockKind.Read, 32, Count(32)));
            sixteen.Add(Engine(long16, BlockKind.Read, 32, Count(32)));
        }

        foreach ((int length, List<double> rates) in ((int, List<double>)[])[(4, four), (16, sixteen)])
        {
            string what = Row.Invariant($"(d) chain of {length} beside one image, 4 KiB read, depth 32, {where}");
            report.Add(new Row(what, "requests/s", "one image", rates, one, AtLeast: 0.9));
        }
    }

    private int Count(int depth, int bytes = RequestBytes) =>
        bytes == MiB ? 4 * SizeMiB : bench.Short ? 2000 : depth == 1 ? 20_000 : 100_000;

    private static double Engine(string[] images, BlockKind kind, int depth, int count) =>
        Engine(DiskEngine.Chain(images), kind, depth, count).PerSecond;

    private static DiskRate Engine(
        IDiskBackend disk, BlockKind kind, int depth, int count, int bytes = RequestBytes, ulong? step = null, bool oneBuffer = false)
    {
        using DiskEngine engine = new(disk, depth, bytes, oneBuffer);
        return engine.Run(kind, count, step ?? StepOf(bytes));
    }

    private static ulong StepOf(int bytes) => bytes == MiB ? MiB : Step;

    private static DiskRate Peer(string image, BlockKind kind, int depth, int count, string engine, int bytes)
    {
        string write = kind == BlockKind.Write ? "-w" : "";
        string command = Row.Invariant(
            $"qemu-img bench -f qcow2 -t none -i {engine} -c {count} -d {depth} -s {bytes} -S {StepOf(bytes)} {write} \"$0\"");
        string output = Bench.Run("bash", "-c", $"set -e; TIMEFORMAT='processor %U %S'; {{ time {command}; }} 2>&1", image);
        Match processor = Processor().Match(output);
        return new DiskRate(
            count / Figure(Seconds().Match(output), "seconds"),
            (Figure(processor, "user") + Figure(processor, "system")) * 1e6 / count,
            Allocated: 0);
    }

    private static double Figure(Match match, string name) => double.Parse(match.Groups[name].Value, CultureInfo.InvariantCulture);

    // The images below one, as far as this benchmark made them.
    private string[] ChainOf(string image)
    {
        string output = Bench.Run("qemu-img", "info", "--backing-chain", "-U", image);
        return [.. Names().Matches(output).Select(match => match.Groups["name"].Value)];
    }

    private string Fresh(int number)
    {
        string path = Image(Row.Invariant($"new{number % 2}.qcow2"));
        File.Delete(path);
        Create(path);
        return path;
    }

    private Func<int, string> Over(string full, params string[] options) => number =>
    {
        string path = Image(Row.Invariant($"over{number % 2}.qcow2"));
        File.Delete(path);
        Bench.Run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", full, "-F", "qcow2", .. options, path]);
        return path;
    };

    // As `vmmctl disk create --backing` and a snapshot make it.
    private Func<int, string> OurOver(string full) => number =>
    {
        string path = Image(Row.Invariant($"ours{number % 2}.qcow2"));
        File.Delete(path);
        Qcow2Creator.Create(path, Qcow2CreateOptions.Over(full, ImageFormat.Qcow2, (ulong)SizeMiB * MiB));
        return path;
    };

    private void Create(string path) => Bench.Run("qemu-img", "create", "-q", "-f", "qcow2", path, $"{SizeMiB}M");

    private void Fill(string path)
    {
        using DiskEngine engine = new(DiskEngine.Chain(path), 8, MiB);
        engine.Run(BlockKind.Write, SizeMiB, MiB);
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);

    private string Image(string name) => Path.Combine(folder, name);

    [GeneratedRegex(@"completed in (?<seconds>[0-9.]+) seconds", RegexOptions.ExplicitCapture)]
    private static partial Regex Seconds();

    [GeneratedRegex(@"processor (?<user>[0-9.]+) (?<system>[0-9.]+)", RegexOptions.ExplicitCapture)]
    private static partial Regex Processor();

    [GeneratedRegex(@"^image: (?<name>.*)$", RegexOptions.Multiline | RegexOptions.ExplicitCapture)]
    private static partial Regex Names();
}
