using Vmm.Interop;
using Vmm.Storage.Changes;

namespace Vmm.Storage.Tests;

/// <summary>The file of a change log as vmmd has it, deleted afterwards.</summary>
internal sealed class LogFile : IDisposable
{
    /// <summary>The boot in which it is opened first.</summary>
    public static readonly Guid Boot = new("11111111-2222-3333-4444-555555555555");

    /// <summary>What the disk's file is like.</summary>
    public static readonly FileStamp Stamp = new(7, 1 << 20, 1000, 1000);

    private readonly string _path = Path.Combine(AppContext.BaseDirectory, "changes-" + Guid.NewGuid().ToString("N") + ".log");

    /// <summary>A log that has begun, and knows what is written from now on.</summary>
    public LogFile(ulong diskBytes)
    {
        File = ChangeLogFile.Create(_path, diskBytes, generation: 1);
        File.Cut();
        File.Forget();
        File.End(Stamp);
        Assert.Equal(ChangeUnknown.None, File.Begin(Boot, bootTime: 2000, Stamp, diskBytes));
    }

    /// <summary>vmmd's side.</summary>
    public ChangeLogFile File { get; private set; }

    public string FilePath => _path;

    /// <summary>What is pending, as numbers of extents.</summary>
    public List<ulong> Pending
    {
        get
        {
            ChangeSet set = File.ReadPending();
            Assert.Equal(ChangeUnknown.None, set.Reason);
            return Extents(set);
        }
    }

    public static List<ulong> Extents(ChangeSet set)
    {
        List<ulong> extents = [];
        ulong before = 0;
        foreach (ChangeRange range in set.Ranges)
        {
            Assert.True(range.Length > 0 && range.Offset % ChangeSet.ExtentBytes == 0, $"{range}");
            Assert.True(range.Offset + range.Length <= set.DiskBytes, $"{range} of {set.DiskBytes}");
            Assert.True(extents.Count == 0 || range.Offset / ChangeSet.ExtentBytes > before + 1, $"{range} touches the one before");
            for (ulong at = range.Offset; at < range.Offset + range.Length; at += ChangeSet.ExtentBytes)
            {
                extents.Add(before = at / ChangeSet.ExtentBytes);
            }
        }

        return extents;
    }

    /// <summary>The worker's side, by a descriptor of its own.</summary>
    public ChangeLog OpenLog() => ChangeLog.Open(BlockFile.Open(_path, writable: true, direct: false), File.DiskBytes);

    /// <summary>vmmd is started anew.</summary>
    public ChangeLogFile Reopen()
    {
        File.Dispose();
        File = ChangeLogFile.TryOpen(_path, out string problem, out _) ?? throw new InvalidOperationException(problem);
        return File;
    }

    public void Dispose()
    {
        File.Dispose();
        System.IO.File.Delete(_path);
    }
}
