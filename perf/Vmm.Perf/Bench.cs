using System.Globalization;

namespace Vmm.Perf;

/// <summary>What the benchmarks share: the contenders, the guests, the order of runs.</summary>
internal sealed class Bench(string root, Contender? ours, Contender peer, bool isShort, string rows = "")
{
    internal Contender? Ours => ours;

    /// <summary>Whether a row is wanted: all are when none are named.</summary>
    internal bool Wants(string row) => row.Contains(rows, StringComparison.Ordinal);

    internal bool Short => isShort;

    /// <summary>The peer is Vmm, too: an earlier one. Few percent matter then, and there are no goals.</summary>
    internal bool AgainstItself => peer is Vmmctl;

    internal IReadOnlyList<Contender> Contenders { get; } = ours is null ? [peer] : [ours, peer];

    /// <summary>The host's TSC rate as the C loop measured it; the guests cannot all find it out.</summary>
    internal double TscKhz { get; private set; }

    /// <summary>
    /// Runs every contender in turn, the first one changing from round to round: drift of the machine falls on all alike.
    /// </summary>
    internal void InTurn(int rounds, Action<Contender> run, int first = 0)
    {
        for (int round = first; round < first + rounds; round++)
        {
            for (int i = 0; i < Contenders.Count; i++)
            {
                run(Contenders[(round + i) % Contenders.Count]);
            }
        }
    }

    internal Dictionary<Contender, List<double>> Empty() => Contenders.ToDictionary(c => c, _ => new List<double>());

    internal Row Row(string what, string unit, Dictionary<Contender, List<double>> samples) =>
        new(what, unit, peer.Name, ours is null ? [] : samples[ours], samples[peer]);

    internal bool HasGuest(string name) => File.Exists(GuestPath(name));

    internal string Guest(string name) =>
        HasGuest(name) ? GuestPath(name) : throw new FileNotFoundException($"{GuestPath(name)} is missing; make -C tests/guests builds it");

    /// <summary>A file full of data, on the disk the repository lies on.</summary>
    internal string ScratchFile(string name, long bytes)
    {
        string path = Path.Combine(root, "perf/results", name);
        using FileStream file = Scratch(path, bytes);
        return path;
    }

    /// <summary>A file full of data: a hole would answer reads without a disk.</summary>
    internal static FileStream Scratch(string path, long bytes, FileOptions options = FileOptions.None)
    {
        byte[] block = new byte[1 << 20];
        new Random(1).NextBytes(block);
        FileStream file = new(path, new FileStreamOptions
        {
            Mode = FileMode.Create,
            Access = FileAccess.ReadWrite,
            Share = FileShare.ReadWrite | FileShare.Delete,
            Options = options
        });
        for (long written = 0; written < bytes; written += block.Length)
        {
            file.Write(block);
        }

        file.Flush(flushToDisk: true);
        return file;
    }

    internal (double NanosecondsPerExit, double TscKhz) PioLoop(int exits)
    {
        string program = Path.Combine(root, "native-shim/build/pio_loop");
        using Launch run = Launch.Start([program, "3", exits.ToString(CultureInfo.InvariantCulture)], TimeSpan.FromSeconds(60));
        if (run.WaitForEnd() != 0)
        {
            throw run.Failed("the C loop failed");
        }

        Dictionary<string, string> words = Words(run.Text);
        TscKhz = double.Parse(words["tsc_khz"], CultureInfo.InvariantCulture);
        return (double.Parse(words["ns_per_exit"], CultureInfo.InvariantCulture), TscKhz);
    }

    /// <summary>The key=value words of the guest's line <c>RESULT name …</c>.</summary>
    internal static IReadOnlyDictionary<string, string> Result(Launch run, string name)
    {
        string? line = run.Text.Split('\n').LastOrDefault(l => l.StartsWith($"RESULT {name} ", StringComparison.Ordinal));
        return line is null ? throw run.Failed($"no RESULT {name} line") : Words(line);
    }

    /// <summary>Runs a program to its end; what it said.</summary>
    /// <exception cref="InvalidOperationException">It failed, or took ten minutes.</exception>
    internal static string Run(string program, params string[] arguments)
    {
        using Launch run = Launch.Start([program, .. arguments], TimeSpan.FromMinutes(10));
        return run.WaitForEnd() == 0 ? run.Text : throw run.Failed($"{program} failed");
    }

    internal static string Output(string program, params string[] arguments)
    {
        try
        {
            using Launch run = Launch.Start([program, .. arguments], TimeSpan.FromSeconds(10));
            return run.WaitForEnd() == 0 ? run.Text.Trim() : "unknown";
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return "unknown";
        }
    }

    private string GuestPath(string name) => Path.Combine(root, $"tests/guests/build/{name}.elf");

    private static Dictionary<string, string> Words(string line) =>
        line.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)
            .Where(w => w.Contains('='))
            .Select(w => w.Split('=', 2))
            .ToDictionary(p => p[0], p => p[1], StringComparer.Ordinal);
}
