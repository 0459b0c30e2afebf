namespace Vmm.Daemon.Tests;

/// <summary>Tests that look at what the whole process holds run alone.</summary>
[CollectionDefinition("resources", DisableParallelization = true)]
public sealed class ResourceCollection;

/// <summary>
/// What a daemon holds and writes before and after it was fed: descriptors, memory, audit log, log, remembered events. Time is bounded by
/// who feeds it:
/// an input that is not answered in time is a failure of its own.
/// </summary>
internal sealed class ResourceOracle
{
    /// <summary>Longest that one input may take, on a machine that does other things.</summary>
    internal static readonly TimeSpan Deadline = TimeSpan.FromSeconds(60);

    private const int MoreDescriptors = 24;
    private const long MoreMemory = 64 << 20;

    private readonly DaemonFixture _daemon;
    private readonly int _descriptors;
    private readonly long _memory, _audit, _log;

    private ResourceOracle(DaemonFixture daemon)
    {
        _daemon = daemon;
        (_descriptors, _memory, _audit, _log) =
            (Descriptors(), GC.GetTotalMemory(forceFullCollection: true), AuditBytes(daemon), LogBytes(daemon));
    }

    /// <summary>A log from warnings up in a file of the test's folder.</summary>
    internal static DaemonOptions Logged(DaemonOptions options, string folder) => options with
    {
        Log = new Logging.LogOptions { Level = Microsoft.Extensions.Logging.LogLevel.Warning, File = Path.Combine(folder, "log") }
    };

    /// <summary>Looks before.</summary>
    internal static ResourceOracle Begin(DaemonFixture daemon) => new(daemon);

    /// <summary>Looks after, and waits a while for what ends by itself.</summary>
    /// <param name="auditBytes">What the audit log may have grown by.</param>
    /// <param name="logBytes">What the log may have grown by.</param>
    internal async Task EndAsync(long auditBytes, long logBytes)
    {
        for (int i = 0; i < 300
            && (Descriptors() > _descriptors + MoreDescriptors || GC.GetTotalMemory(forceFullCollection: true) > _memory + MoreMemory); i++)
        {
            await Task.Delay(100);
        }

        Assert.InRange(Descriptors(), 0, _descriptors + MoreDescriptors);
        Assert.InRange(GC.GetTotalMemory(forceFullCollection: true), 0, _memory + MoreMemory);
        Assert.InRange(AuditBytes(_daemon) - _audit, 0, auditBytes);
        Assert.InRange(LogBytes(_daemon) - _log, 0, logBytes);
        Assert.Equal("ok\n", await _daemon.GetAsync("/healthz").WaitAsync(Deadline));
    }

    // The runtime keeps the assemblies open that it loads at the first use of something.
    private static int Descriptors() => Directory.GetFileSystemEntries("/proc/self/fd")
        .Count(fd => new FileInfo(fd).LinkTarget?.EndsWith(".dll", StringComparison.Ordinal) != true);

    private static long AuditBytes(DaemonFixture daemon) => Bytes(daemon.Options.StateFolder, "audit.log*");

    private static long LogBytes(DaemonFixture daemon) => Bytes(daemon.Folder, "log*");

    private static long Bytes(string folder, string pattern) => new DirectoryInfo(folder).EnumerateFiles(pattern).Sum(f => f.Length);
}
