using System.Globalization;
using Vmm.Memory;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Where the pages of a worker's vnodes lie, from its numa_maps. The kernel walks all page tables of the process for that, which of a large
/// VM takes long. A report holds for <see cref="Rest"/> times what it took: those who ask, however many and often, cost a tenth of a
/// processor.
/// </summary>
internal sealed class ResidencyReport(Func<string> read, TimeProvider time)
{
    /// <summary>How long a report holds, in times of what it took.</summary>
    internal const int Rest = 9;

    private readonly Lock _gate = new();
    private IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? _last;
    private (long End, TimeSpan Holds)? _taken;

    /// <summary>That of a process.</summary>
    internal static ResidencyReport Of(int processId) =>
        new(() => File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{processId}/numa_maps")), TimeProvider.System);

    /// <summary>
    /// Bytes per vnode and host node; null where there is no report: a kernel without NUMA, a daemon without CAP_SYS_PTRACE, a worker that
    /// has ended.
    /// </summary>
    internal IReadOnlyDictionary<int, IReadOnlyDictionary<int, ulong>>? Read()
    {
        lock (_gate)
        {
            if (_taken is not { } taken || time.GetElapsedTime(taken.End) >= taken.Holds)
            {
                long start = time.GetTimestamp();
                try
                {
                    _last = NumaMaps.Parse(read());
                }
                catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
                {
                    _last = null;
                }

                long end = time.GetTimestamp();
                _taken = (end, time.GetElapsedTime(start, end) * Rest);
            }

            return _last;
        }
    }
}
