using System.Diagnostics;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Backup;

/// <summary>Tells how far a backup is, ends it when it is cancelled, and keeps to a rate. For one thread.</summary>
internal sealed class BackupPace(ulong? bytesPerSecond, ToolProgress progress)
{
    // Short, so that a cancel is heard soon whatever the rate is.
    private static readonly TimeSpan s_longest = TimeSpan.FromMilliseconds(200);

    private readonly long _begin = Stopwatch.GetTimestamp();
    private ulong _read;

    /// <summary>So many bytes of a disk are done, of which so many were read.</summary>
    /// <exception cref="OperationCanceledException">The caller gave up.</exception>
    internal void Advance(ulong bytes, ulong read)
    {
        progress.Advance(bytes);
        _read += read;
        while (bytesPerSecond is { } rate && TimeSpan.FromSeconds((double)_read / rate) - Stopwatch.GetElapsedTime(_begin) is var ahead
            && ahead > TimeSpan.Zero)
        {
            Thread.Sleep(ahead < s_longest ? ahead : s_longest);
            progress.Advance(0);
        }
    }
}
