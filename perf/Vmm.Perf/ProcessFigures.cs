using System.Globalization;

namespace Vmm.Perf;

/// <summary>Figures of a process from /proc.</summary>
internal static class ProcessFigures
{
    /// <summary>Private dirty memory, KiB.</summary>
    internal static double PrivateDirty(int process) =>
        Field($"/proc/{process.ToString(CultureInfo.InvariantCulture)}/smaps_rollup", "Private_Dirty:");

    /// <summary>Proportional set size, KiB.</summary>
    internal static double Proportional(int process) =>
        Field($"/proc/{process.ToString(CultureInfo.InvariantCulture)}/smaps_rollup", "Pss:");

    /// <summary>CPU time of all threads, in ticks of 10 ms.</summary>
    internal static long CpuTicks(int process)
    {
        // proc(5): utime and stime are fields 14 and 15; the name in field 2 may contain spaces.
        string text = File.ReadAllText($"/proc/{process.ToString(CultureInfo.InvariantCulture)}/stat");
        string[] fields = text[(text.LastIndexOf(')') + 2)..].Split(' ');
        return long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture);
    }

    /// <summary>A field of a /proc file, KiB.</summary>
    internal static double Field(string file, string name)
    {
        foreach (string line in File.ReadLines(file))
        {
            if (line.StartsWith(name, StringComparison.Ordinal))
            {
                return double.Parse(line.AsSpan(name.Length).Trim().TrimEnd("kB").Trim(), CultureInfo.InvariantCulture);
            }
        }

        throw new InvalidDataException($"{file} has no {name}");
    }
}
