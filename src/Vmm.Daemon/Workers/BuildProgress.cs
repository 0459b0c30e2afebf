using System.Globalization;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>
/// How far a worker is with the memory that is taken when its VM is built: huge pages, one after the other. The kernel counts them
/// (HugetlbPages in proc_pid_status(5)), so the worker, which is busy, is not asked. Disposing ends it.
/// </summary>
internal sealed class BuildProgress : IDisposable
{
    /// <summary>A host that zeroes pages slower than this has another trouble. Usual are 4 to 10 GiB a second.</summary>
    private const double LeastBytesPerSecond = 256 << 20;

    private static readonly TimeSpan s_interval = TimeSpan.FromMilliseconds(250);

    private readonly int _processId;
    private readonly double _bytes;
    private readonly Action<double>? _tell;
    private readonly Timer? _timer;

    /// <summary>Begins to look, when there is something to see and somebody to tell.</summary>
    internal BuildProgress(int processId, VmSpec spec, Action<double>? tell)
    {
        _processId = processId;
        _bytes = TakenAtStart(spec);
        _tell = tell;
        if (tell is not null && _bytes > 0)
        {
            _timer = new Timer(_ => Look(), null, s_interval, s_interval);
        }
    }

    /// <summary>How long it may take to build this VM, beyond a usual answer of a worker.</summary>
    internal static TimeSpan Longest(VmSpec spec) => TimeSpan.FromSeconds(TakenAtStart(spec) / LeastBytesPerSecond);

    /// <summary>Bytes of huge pages in the text of /proc/PID/status; 0 when it does not say.</summary>
    internal static double HugePageBytes(string status)
    {
        foreach (ReadOnlySpan<char> line in status.AsSpan().EnumerateLines())
        {
            if (line.StartsWith("HugetlbPages:", StringComparison.Ordinal))
            {
                ReadOnlySpan<char> number = line[(line.IndexOf(':') + 1)..].Trim();
                int end = number.IndexOf(' ');
                return double.TryParse(
                    end < 0 ? number : number[..end], NumberStyles.None, CultureInfo.InvariantCulture, out double kibibytes)
                    ? kibibytes * 1024
                    : 0;
            }
        }

        return 0;
    }

    public void Dispose() => _timer?.Dispose();

    private static double TakenAtStart(VmSpec spec) =>
        spec.EffectiveVnodes.Where(v => v.PageSize.Bytes > ByteSize.BytesPerPage).Sum(v => (double)v.Memory.Bytes);

    private void Look()
    {
        try
        {
            _tell!(Math.Min(1, HugePageBytes(File.ReadAllText($"/proc/{_processId}/status")) / _bytes));
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            // It has ended; who launches it hears that.
        }
    }
}
