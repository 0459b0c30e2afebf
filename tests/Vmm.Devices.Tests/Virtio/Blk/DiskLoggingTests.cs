using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Storage;
using Vmm.Storage.Changes;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>Change logs that begin, are cut and end before disks that work.</summary>
public sealed class DiskLoggingTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20);

    private readonly SwitchFolder _files = new();

    public void Dispose() => _files.Dispose();

    /// <summary>A log begins, is cut and ends before a disk that works: nothing is lost, and each cut names what was written.</summary>
    [Fact]
    public void A_log_begins_is_cut_and_ends_before_a_disk_that_works()
    {
        IDetachableDisk disk = _files.Qcow2("disk", out byte[] model);
        VirtioBlk device = new(disk, new VirtioBlkOptions { QueueCount = 2, IoThreads = 2 });
        using ChangeLogFile file = ChangeLogFile.Create(_files.PathOf("log"), SwitchFolder.Capacity, generation: 1);
        using (SwitchLoad load = new(device, model))
        {
            load.RunFor(50);
            Assert.Null(DiskLogging.Set(device, Open(file), s_patience)); // in the middle of it
            string below = "disk";
            for (int round = 0; round < 6; round++)
            {
                load.RunFor(60);
                string top = $"top{round}";
                DiskSwitch.Run(
                    [SwitchFolder.Snapshot(device, _files.Overlay(top, below, "qcow2"))], s_patience, () => device.Log!.Cut());
                ChangeSet named = file.ReadPending();
                Assert.Equal(round == 0 ? ChangeUnknown.New : ChangeUnknown.None, named.Reason);
                Assert.NotEmpty(named.Ranges);
                file.Forget();
                below = top;
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

    private ChangeLog Open(ChangeLogFile file) =>
        ChangeLog.Open(BlockFile.Open(file.Path, writable: true, direct: false), SwitchFolder.Capacity);
}
