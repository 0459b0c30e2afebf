using System.Globalization;
using Vmm.Contracts.Rest;
using Vmm.Perf;

const string Usage = "usage: perf/run [--short] [--peer-only] [--rows=TEXT] "
    + "[start] [block] [memdisk] [disks] [exits] [daemon] [net] [usernet] [memory] [numa] [swapstore] [pager] [replica] [save]   "
    + "(environment: VMMCTL, VMMD, QEMU, BEFORE)";
string[] known =
    ["start", "block", "memdisk", "disks", "exits", "daemon", "net", "usernet", "memory", "numa", "swapstore", "pager", "replica", "save"];
if (args is ["flood"])
{
    return NetBench.Flood(); // this program again, inside the namespace of the network benchmark
}

if (args is ["echo", string seconds])
{
    return UserNetBench.Echo(int.Parse(seconds, CultureInfo.InvariantCulture));
}

string[] parts = [.. args.Where(a => !a.StartsWith('-'))];
string[] options = [.. args.Where(a => a.StartsWith('-'))];
const string RowsOption = "--rows="; // of the part disks: those whose name has this text
if (options.Except(["--short", "--peer-only"], StringComparer.Ordinal).Any(o => !o.StartsWith(RowsOption, StringComparison.Ordinal))
    || parts.Except(known, StringComparer.Ordinal).Any())
{
    Console.Error.WriteLine(Usage);
    return 2;
}

string root = Environment.GetEnvironmentVariable("VMM_ROOT") ?? Environment.CurrentDirectory;
string vmmctl = Environment.GetEnvironmentVariable("VMMCTL") ?? Path.Combine(root, "artifacts/publish/vmmctl/vmmctl");
string vmmd = Environment.GetEnvironmentVariable("VMMD") ?? Path.Combine(root, "artifacts/publish/vmmd/vmmd");
string? before = Environment.GetEnvironmentVariable("BEFORE"); // another vmmctl in QEMU's place
string qemu = Environment.GetEnvironmentVariable("QEMU") ?? "qemu-system-x86_64";
bool peerOnly = options.Contains("--peer-only", StringComparer.Ordinal);
if (before is not null && (parts.Length == 0 || parts.Except(["start", "block", "memdisk", "net"], StringComparer.Ordinal).Any()))
{
    Console.Error.WriteLine("perf: BEFORE is compared by the parts start, block, memdisk and net");
    return 2;
}

string[] storage = ["disks", "swapstore", "pager", "replica"]; // these need no machine
bool storageOnly = parts.Length > 0 && !parts.Except(storage, StringComparer.Ordinal).Any();
if (!peerOnly && !storageOnly && !File.Exists(vmmctl))
{
    Console.Error.WriteLine($"perf: {vmmctl} is missing; 'make publish' builds it, or set VMMCTL, or use --peer-only");
    return 2;
}

if (!storageOnly && !File.Exists("/dev/kvm"))
{
    Console.Error.WriteLine("perf: this host has no /dev/kvm: only 'perf/run disks swapstore pager replica' has something to compare");
    return 2;
}

Bench bench = new(
    root,
    peerOnly ? null : new Vmmctl(vmmctl),
    before is null ? new QemuMicrovm(qemu) : new Vmmctl(before, "before"),
    options.Contains("--short", StringComparer.Ordinal),
    options.FirstOrDefault(o => o.StartsWith(RowsOption, StringComparison.Ordinal))?[RowsOption.Length..] ?? "");
string commit = Bench.Output("git", "-C", root, "describe", "--always", "--dirty");
Report report = new(new Dictionary<string, string>(StringComparer.Ordinal)
{
    ["date"] = DateTime.UtcNow.ToString("yyyy-MM-dd HH:mm 'UTC'", CultureInfo.InvariantCulture),
    ["commit"] = commit,
    ["command"] = $"perf/run {string.Join(' ', args)}".Trim(),
    ["host"] = $"{Environment.ProcessorCount} CPUs, kernel {Bench.Output("uname", "-r")}, load "
        + $"{File.ReadAllText("/proc/loadavg").Split(' ')[0]} at start",
    ["peer"] = before ?? Bench.Output(qemu, "--version").Split('\n')[0],
}, goals: before is null);
Directory.CreateDirectory(Path.Combine(root, "perf/results"));
bool all = parts.Length == 0;
bool Wanted(string part) => all || parts.Contains(part, StringComparer.Ordinal);

try
{
    if (!storageOnly)
    {
        _ = bench.PioLoop(20000);
    }

    if (Wanted("start"))
    {
        new StartBench(bench).Run(report);
    }

    if (Wanted("block"))
    {
        if (bench.HasGuest("blk"))
        {
            new BlockBench(bench).Run(report);
        }
        else
        {
            report.Note("(b) skipped: tests/guests/build/blk.elf does not exist");
        }
    }

    if (Wanted("memdisk"))
    {
        if (bench.HasGuest("blk") && Directory.Exists(BlockBench.Memory))
        {
            new BlockBench(bench).RunInMemory(report);
        }
        else
        {
            report.Note(Row.Invariant($"(b) in memory: skipped: needs tests/guests/build/blk.elf and {BlockBench.Memory}"));
        }
    }

    if (Wanted("disks"))
    {
        new DisksBench(bench, Path.Combine(root, "perf/results/disks")).Run(report, "real disk");
        if (Directory.Exists(BlockBench.Memory))
        {
            string memory = Path.Combine(BlockBench.Memory, Row.Invariant($"vmm-perf-{Environment.ProcessId}"));
            new DisksBench(bench, memory).Run(report, "in memory");
        }
    }

    if (Wanted("pager"))
    {
        new PagerBench(bench, root).Run(report);
    }

    if (Wanted("swapstore"))
    {
        new SwapStoreBench(bench, Path.Combine(root, "perf/results")).Run(report, "real disk");
        if (Directory.Exists(BlockBench.Memory))
        {
            new SwapStoreBench(bench, BlockBench.Memory).Run(report, "in memory");
        }
    }

    if (Wanted("replica"))
    {
        new ReplicaBench(bench, Path.Combine(root, "perf/results")).Run(report);
    }

    if (Wanted("exits"))
    {
        new ExitBench(bench).Run(report);
    }

    if (Wanted("net"))
    {
        if (Environment.IsPrivilegedProcess && File.Exists("/dev/net/tun") && bench.HasGuest("net"))
        {
            new NetBench(bench).Run(report);
        }
        else
        {
            report.Note("(f) skipped: needs root, /dev/net/tun and tests/guests/build/net.elf");
        }
    }

    if (Wanted("usernet"))
    {
        if (UserNetBench.IsPossible && bench.HasGuest("net"))
        {
            new UserNetBench(bench).Run(report);
        }
        else
        {
            report.Note("(f) user-mode network skipped: needs root, passt, /dev/net/tun and tests/guests/build/net.elf");
        }
    }

    if (Wanted("daemon") && !peerOnly)
    {
        new DaemonBench(bench, vmmd).Run(report);
    }

    if (Wanted("save") && Directory.Exists(BlockBench.Memory))
    {
        new SaveBench(bench, vmmd).Run(report);
    }

    if (Wanted("memory") && !peerOnly)
    {
        new MemoryBench(bench, vmmd).Run(report);
    }

    if (Wanted("numa") && !peerOnly)
    {
        new LatencyBench(bench, vmmctl).Run(report);
    }
}
catch (Exception e) when (e is InvalidOperationException or IOException or VmmApiException)
{
    Console.Write(report.Markdown());
    Console.Error.WriteLine($"perf: {e.Message}");
    return 1;
}

string name = Path.Combine(root, "perf/results", $"{DateTime.UtcNow.ToString("yyyyMMdd-HHmmss", CultureInfo.InvariantCulture)}-{commit}");
File.WriteAllText(name + ".md", report.Markdown());
File.WriteAllText(name + ".json", report.Json());
Console.Write(report.Markdown());
Console.WriteLine($"\nwritten to {Path.GetRelativePath(root, name)}.md and .json");
return 0;
