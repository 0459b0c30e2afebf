using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>A disk is streamed while a driver writes and reads it: it goes on with fewer images, and nobody notices.</summary>
public sealed class BlkStreamTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20);

    private readonly SwitchFolder _files = new();

    public void Dispose() => _files.Dispose();

    [Theory]
    [InlineData(1, 1, null, 1)]
    [InlineData(4, 2, null, 1)]
    [InlineData(2, 2, "disk", 3)]
    [InlineData(4, 4, "disk.base", 2)]
    public void A_disk_goes_on_without_the_images_that_it_needs_no_more(int queues, int threads, string? baseFile, int images)
    {
        VirtioBlk device = Device(queues, threads, out byte[] model);
        using (SwitchLoad load = new(device, model))
        {
            load.RunFor(40);
            using BlkStream stream = new(device, baseFile);
            Assert.Throws<InvalidOperationException>(() => stream.Finish(s_patience)); // not everything is there
            stream.Start(64 << 20, PlainIoThreads.Instance);
            Assert.True(SpinWait.SpinUntil(() => stream.Report.State != MirrorState.Copying, s_patience));
            Assert.Equal((MirrorState.Mirrored, null), (stream.Report.State, stream.Report.Problem));
            Assert.Equal(stream.TotalBytes, stream.Report.CopiedBytes);
            load.RunFor(40);
            stream.Finish(s_patience);
            Assert.Equal(images, ((Qcow2Disk)device.Disk).Images);
            load.RunFor(40);
        }

        foreach (string gone in new[] { "middle", "disk", "disk.base" }.Take(4 - images))
        {
            using (RawFileBackend.Open(_files.PathOf(gone), new RawFileOptions { IsImage = true })) { } // nobody has it
            File.Delete(_files.PathOf(gone));
        }

        Assert.Equal(model, _files.Content("top", "qcow2"));
        QemuImg.Run("check", _files.PathOf("top"));
    }

    [Fact]
    public void One_that_is_given_up_leaves_the_disk_as_it_is()
    {
        VirtioBlk device = Device(2, 2, out byte[] model);
        using (SwitchLoad load = new(device, model))
        {
            for (int round = 0; round < 3; round++)
            {
                using BlkStream stream = new(device, null);
                stream.Start(1 << 20, PlainIoThreads.Instance);
                load.RunFor(20);
            }

            Assert.Equal(4, ((Qcow2Disk)device.Disk).Images);
        }

        Assert.Equal(model, _files.Content("top", "qcow2"));
        QemuImg.Run("check", _files.PathOf("top"));
    }

    /// <summary>The machine ends: its disk takes the thread of the stream along.</summary>
    [Fact]
    public void A_disk_that_ends_ends_its_stream()
    {
        VirtioBlk device = Device(1, 1, out byte[] model);
        BlkStream stream = new(device, null);
        stream.Start(1 << 20, PlainIoThreads.Instance);
        using (SwitchLoad load = new(device, model))
        {
            load.RunFor(20);
        }

        Assert.Equal(MirrorState.Ended, stream.Report.State);
        Assert.Equal(model, _files.Content("top", "qcow2"));
        stream.Dispose();
    }

    [Theory]
    [InlineData("elsewhere", "does not stand on elsewhere")]
    [InlineData("middle", "nothing between")]
    public void A_base_that_cannot_be_is_refused(string baseFile, string problem)
    {
        VirtioBlk device = Device(1, 1, out _);
        BlockException error = Assert.Throws<BlockException>(() => new BlkStream(device, baseFile));
        Assert.Contains(problem, error.Message, StringComparison.Ordinal);
        device.Dispose();
        device.Disk.Dispose();
    }

    // top over middle over disk (qcow2) over disk.base (raw).
    private VirtioBlk Device(int queues, int threads, out byte[] model)
    {
        _files.Qcow2("disk", out model).Dispose();
        _files.Create("middle", "disk", "qcow2");
        _files.Create("top", "middle", "qcow2");
        return new VirtioBlk(
            DiskImageChain.Open(_files.PathOf("top"), new RawFileOptions()).ToDisk(),
            new VirtioBlkOptions { QueueCount = queues, IoThreads = threads, QueueSize = 16, PollMicroseconds = 0 });
    }
}
