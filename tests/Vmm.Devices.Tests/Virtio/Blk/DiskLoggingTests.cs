using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Storage;
using Vmm.Storage.Changes;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>Change logs that begin, are cut and end before disks that work.</summary>
public sealed class DiskLoggingTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20);

    private readonly SwitchFolder _files = new();

    public void Dispose() => _files.Dispose();

    /// <summary>Each cut is at the instant of a snapshot: what differs between two of them is in the log.</summary>
    [Fact]
    public void What_changes_between_two_snapshots_is_what_the_cut_names()
    {
        IDetachableDisk disk = _files.Qcow2("disk", out byte[] model);
        VirtioBlk device = new(disk, new VirtioBlkOptions { QueueCount = 2, IoThreads = 2 });
        using ChangeLogFile file = ChangeLogFile.Create(_files.PathOf("log"), SwitchFolder.Capacity, generation: 1);
        using (SwitchLoad load = new(device, model))
        {
            load.RunFor(50);
            Assert.Null(DiskLogging.Set(device, Open(file), s_patience)); // in the middle of it
            string below = "disk";
            byte[]? before = null;
            for (int round = 0; round < 6; round++)
            {
                load.RunFor(60);
                string top = $"top{round}";
                DiskSwitch.Run(
                    [SwitchFolder.Snapshot(device, _files.Overlay(top, below, "qcow2"))], s_patience, () => device.Log!.Cut());
                byte[] after = Content(below); // nobody writes it any more
                AssertCovered(file.ReadPending(), before, after);
                file.Forget();
                (before, below) = (after, top);
            }

            ChangeLog? log = DiskLogging.Set(device, null, s_patience);
            Assert.NotNull(log);
            log.Dispose();
            Assert.Null(device.Log);
            load.RunFor(50);
        }

        device.Dispose();
    }

    [Fact]
    public void A_log_of_another_disk_is_refused()
    {
        using ChangeLogFile file = ChangeLogFile.Create(_files.PathOf("log"), 4096, generation: 1);
        Assert.Throws<BlockException>(() => Open(file));
    }

    private static void AssertCovered(ChangeSet changes, byte[]? before, byte[] after)
    {
        if (before is null)
        {
            Assert.Equal(ChangeUnknown.New, changes.Reason);
            return;
        }

        Assert.False(changes.IsAll);
        HashSet<int> named = [];
        foreach (ChangeRange range in changes.Ranges)
        {
            for (ulong at = range.Offset; at < range.Offset + range.Length; at += ChangeSet.ExtentBytes)
            {
                named.Add((int)(at / ChangeSet.ExtentBytes));
            }
        }

        Assert.NotEmpty(named);
        for (int extent = 0; extent * ChangeSet.ExtentBytes < after.Length; extent++)
        {
            int at = extent * ChangeSet.ExtentBytes, length = Math.Min(ChangeSet.ExtentBytes, after.Length - at);
            Assert.True(
                named.Contains(extent) || before.AsSpan(at, length).SequenceEqual(after.AsSpan(at, length)),
                $"extent {extent} differs, and the log does not name it");
        }
    }

    // As a cut reads it: the device has the file still, as a base.
    private byte[] Content(string name)
    {
        ImageConvert.Run(
            _files.PathOf(name), _files.PathOf("out"),
            new ConvertOptions { SourceFormat = "qcow2", TargetFormat = "raw", Replace = true });
        return File.ReadAllBytes(_files.PathOf("out"));
    }

    private ChangeLog Open(ChangeLogFile file) =>
        ChangeLog.Open(BlockFile.Open(file.Path, writable: true, direct: false), SwitchFolder.Capacity);
}
