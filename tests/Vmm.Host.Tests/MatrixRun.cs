using System.Diagnostics;
using Vmm.Testing;

namespace Vmm.Host.Tests;

/// <summary>One guest of the matrix.</summary>
public sealed record GuestCase(string Name, string Kernel, string Format, int Cpus, int Vnodes, int MemoryMiB)
{
    /// <summary>A spec instead of options; it says the same of CPUs, vnodes and memory.</summary>
    public string? Spec { get; init; }

    /// <summary>Guests of one group run in one test host.</summary>
    public string Group => $"{Kernel}-{Format}";
}

/// <summary>What one guest left behind.</summary>
public sealed record GuestResult(int ExitCode, string Console, string Errors, string NumaMaps)
{
    public IEnumerable<string> Said(string prefix) =>
        Console.Split('\n').Select(l => l.TrimEnd('\r')).Where(l => l.StartsWith("GUEST " + prefix, StringComparison.Ordinal));

    public string Dmesg
    {
        get
        {
            int begin = Console.IndexOf("GUEST dmesg begin", StringComparison.Ordinal);
            int end = Console.IndexOf("GUEST dmesg end", StringComparison.Ordinal);
            return begin >= 0 && end > begin
                ? Console[begin..end]
                : throw new InvalidOperationException("The guest printed no dmesg:\n" + Tail);
        }
    }

    public string Tail => string.Join('\n', Console.Split('\n').TakeLast(40)) + "\n" + Errors;
}

/// <summary>Boots a test host for each group, runs every guest of a group in it, and keeps what they said.</summary>
public sealed class MatrixRun : IDisposable
{
    internal const int HostFailed = 125;
    private const int Attempts = 4;

    private readonly string _work = Directory.CreateTempSubdirectory("vmm-matrix-").FullName;
    private readonly Dictionary<string, Lazy<string>> _results;

    public MatrixRun() =>
        _results = Cases.Select(c => c.Group).Distinct().ToDictionary(g => g, g => new Lazy<string>(() => Run(g)), StringComparer.Ordinal);

    /// <summary>Stock Debian 6.1 and 6.12, bzImage and ELF, 1, 2 and 4 vCPUs.</summary>
    public static IReadOnlyList<GuestCase> Cases { get; } =
    [
        .. from kernel in new[] { "bookworm-cloud", "trixie-cloud" }
           from format in new[] { "bzImage", "elf" }
           from cpus in new[] { 1, 2, 4 }
           select new GuestCase($"{kernel}-{format}-{cpus}", kernel, format, cpus, Math.Min(cpus, 2), 512),
        Packed,
    ];

    /// <summary>Threads, and an HMAT.</summary>
    public static GuestCase Packed => new("trixie-cloud-bzImage-packed", "trixie-cloud", "bzImage", 4, 2, 512)
    {
        Spec = """
            cpus: 4
            memory: 512MiB
            topology: {threads: 2}
            boot: {kernel: kernel}
            numa:
              vnodes:
                - {cpus: 0-1, memory: 256MiB, hostNodes: 0}
                - {cpus: 2-3, memory: 256MiB, hostNodes: 1}
              distances: [[10, 20], [20, 10]]
              latencies: [[80, 140], [140, 95]]
              bandwidths: [[20000, 9000], [9000, 17000]]
            """,
    };

    public GuestResult Result(string name)
    {
        string folder = Path.Combine(_results[Cases.Single(c => c.Name == name).Group].Value, name);
        if (!Directory.Exists(folder))
        {
            throw new InvalidOperationException($"The test host brought back nothing for guest '{name}'.");
        }

        string Text(string file) => File.Exists(Path.Combine(folder, file)) ? File.ReadAllText(Path.Combine(folder, file)) : "";
        return new GuestResult(int.Parse(Text("exit-code").Trim()), Text("console"), Text("stderr"), Text("numa_maps"));
    }

    public void Dispose() => Directory.Delete(_work, recursive: true);

    private string Run(string group)
    {
        string root = Tree.Root;
        GuestCase[] cases = [.. Cases.Where(c => c.Group == group)];
        string kernel = cases[0].Kernel;
        string payload = Directory.CreateDirectory(Path.Combine(_work, group, "matrix")).FullName;
        string here = Path.Combine(root, "tests", "Vmm.Host.Tests", "Payload");
        string folder = Shell(root, 600, "tests/testhost/fetch-kernel", kernel).Output.Trim().Split('\n')[^1];
        File.Copy(Path.Combine(here, "matrix.sh"), Path.Combine(payload, "matrix.sh"));
        File.Copy(Path.Combine(folder, cases[0].Format == "elf" ? "vmlinux" : "vmlinuz"), Path.Combine(payload, "kernel"));
        Shell(root, 120, "tests/testhost/make-guest-initramfs", "--kernel", folder, "--script", Path.Combine(here, "guest.sh"), "--out",
            Path.Combine(payload, "initrd"));
        File.WriteAllLines(
            Path.Combine(payload, "cases.txt"),
            cases.Select(c => $"{c.Name} kernel initrd {c.Cpus} {c.Vnodes} {c.MemoryMiB}MiB {(c.Spec is null ? "" : c.Name + ".yaml")}"));
        foreach (GuestCase given in cases.Where(c => c.Spec is not null))
        {
            File.WriteAllText(Path.Combine(payload, given.Name + ".yaml"), given.Spec);
        }

        // The emulated machine itself panics now and then (nested SVM in QEMU's emulation): then the group is tried again.
        for (int attempt = 1; ; attempt++)
        {
            string results = Directory.CreateDirectory(Path.Combine(_work, group, $"results{attempt}")).FullName;
            (int status, string output) = Shell(
                root, 1100, "tests/testhost/run", "--timeout", "1000", "--payload", Path.Combine(root, "artifacts", "publish", "vmmctl"),
                "--payload", payload, "--collect", results, "--", "/payload/matrix/matrix.sh");
            if (status == 0)
            {
                return Directory.Exists(Path.Combine(results, "collect")) ? Path.Combine(results, "collect") : results;
            }

            if (status != HostFailed || attempt == Attempts)
            {
                throw new InvalidOperationException($"The test host ended with {status} (attempt {attempt}):\n{output}");
            }

            Console.WriteLine($"{group}: the test host failed by itself, attempt {attempt}");
        }
    }

    internal static (int Status, string Output) Shell(string root, int seconds, string program, params string[] arguments)
    {
        ProcessStartInfo start = new(Path.Combine(root, program))
        {
            WorkingDirectory = root,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false
        };
        foreach (string argument in arguments)
        {
            start.ArgumentList.Add(argument);
        }

        using Process process = Process.Start(start) ?? throw new InvalidOperationException($"{program} did not start");
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        if (!process.WaitForExit(TimeSpan.FromSeconds(seconds)))
        {
            process.Kill(entireProcessTree: true);
            throw new TimeoutException($"{program} {string.Join(' ', arguments)} did not end within {seconds} s.");
        }

        return process.ExitCode is 0 or HostFailed
            ? (process.ExitCode, process.ExitCode == 0 ? output.Result : output.Result + errors.Result)
            : throw new InvalidOperationException(
                $"{program} {string.Join(' ', arguments)} ended with {process.ExitCode}:\n{output.Result}\n{errors.Result}");
    }
}
