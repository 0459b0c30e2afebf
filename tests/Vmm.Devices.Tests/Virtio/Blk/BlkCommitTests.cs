using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>
/// A disk is committed into an image of its chain while a driver writes and reads it: it goes on there, and nobody notices.
/// </summary>
public sealed class BlkCommitTests : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    private readonly SwitchFolder _files = new();

    public void Dispose() => _files.Dispose();

    [Theory]
    [InlineData(1, 1, "middle", 1)]
    [InlineData(2, 2, "middle", 1)]
    [InlineData(4, 2, "disk", 2)]
    [InlineData(2, 1, "disk.base", 3)]
    [InlineData(4, 4, "disk.base", 3)]
    public void A_disk_goes_on_in_its_base(int queues, int threads, string into, int gone)
    {
        VirtioBlk device = Device(queues, threads, out byte[] model);
        using (SwitchLoad load = new(device, model))
        {
            load.RunFor(40);
            BlkCommit commit = Begin(device, into, 64 << 20);
            load.RunFor(20);
            AwaitMirrored(commit);
            load.RunFor(20);
            commit.Seal();
            load.RunFor(20);
            commit.Finish(s_patience);
            Assert.Equal(4 - gone, device.Disk is Qcow2Disk image ? image.Images : 1);
            load.RunFor(40);
        }

        foreach (string file in new[] { "top", "middle", "disk" }.Take(gone))
        {
            using (RawFileBackend.Open(_files.PathOf(file), new RawFileOptions { IsImage = true })) { } // nobody has it
            File.Delete(_files.PathOf(file));
        }

        CheckContent(into, model);
    }

    /// <summary>Clusters of other sizes, parts of clusters, compressed ones: what the chain reads of the base is what it was.</summary>
    [Theory]
    [InlineData("cluster_size=64k", "cluster_size=4k", false)]
    [InlineData("cluster_size=256k", "cluster_size=512", false)]
    [InlineData("cluster_size=4k", "cluster_size=64k", false)]
    [InlineData("cluster_size=64k,extended_l2=on", "cluster_size=4k", false)]
    [InlineData("cluster_size=64k,extended_l2=on", "cluster_size=64k,extended_l2=on", false)]
    [InlineData("cluster_size=64k", "cluster_size=4k", true)]
    [InlineData("cluster_size=64k,compat=0.10", "cluster_size=4k", true)]
    public void A_base_of_any_kind_gets_all(string lower, string upper, bool isCompressed)
    {
        _files.Raw("raw", out byte[] model).Dispose();
        QemuImg.Run(["convert", "-q", "-f", "raw", "-O", "qcow2", .. isCompressed ? new[] { "-c" } : [], "-o", lower, _files.PathOf("raw"),
            _files.PathOf("base")]);
        QemuImg.Run("create", "-q", "-f", "qcow2", "-o", upper, "-b", _files.PathOf("base"), "-F", "qcow2", _files.PathOf("top"));
        VirtioBlk device = Device(2, 2);
        using (SwitchLoad load = new(device, model))
        {
            load.RunFor(40);
            Begin(device, "base", 2 << 20).Cancel(s_patience);
            load.RunFor(20);
            BlkCommit commit = Begin(device, "base", 0);
            AwaitMirrored(commit);
            load.RunFor(20);
            commit.Seal();
            commit.Finish(s_patience);
            load.RunFor(20);
        }

        CheckContent("base", model);
    }

    [Theory]
    [InlineData("middle")]
    [InlineData("disk.base")]
    public void One_that_is_given_up_leaves_the_disk_as_it_is(string into)
    {
        VirtioBlk device = Device(2, 2, out byte[] model);
        using (SwitchLoad load = new(device, model))
        {
            for (int round = 0; round < 4; round++)
            {
                load.RunFor(20);
                BlkCommit commit = Begin(device, into, round == 0 ? 1ul << 20 : 0);
                if (round > 1)
                {
                    AwaitMirrored(commit);
                }

                if (round == 3)
                {
                    commit.Seal();
                }

                load.RunFor(20);
                commit.Cancel(s_patience);
                Assert.Equal(4, ((Qcow2Disk)device.Disk).Images);
                using RawFileBackend reader =
                    RawFileBackend.Open(_files.PathOf(into), new RawFileOptions { ReadOnly = true, IsImage = true }); // it may be again
            }
        }

        CheckContent("top", model);
        if (into == "middle")
        {
            QemuImg.Run("check", _files.PathOf(into)); // leaks are errors here
        }
    }

    /// <summary>The machine ends: nothing of the commit is left, and the chain is the disk.</summary>
    [Theory]
    [InlineData("middle", false)]
    [InlineData("middle", true)]
    [InlineData("disk.base", true)]
    public void A_disk_that_ends_ends_its_commit(string into, bool isSealed)
    {
        VirtioBlk device = Device(2, 1, out byte[] model);
        using (SwitchLoad load = new(device, model))
        {
            load.RunFor(20);
            BlkCommit commit = Begin(device, into, isSealed ? 0ul : 1ul << 20);
            if (isSealed)
            {
                AwaitMirrored(commit);
                commit.Seal();
            }

            load.RunFor(20);
        }

        CheckContent("top", model);
        if (isSealed)
        {
            CheckContent(into, model); // either is the disk
        }

        using (RawFileBackend.Open(_files.PathOf(into), new RawFileOptions { IsImage = true })) { } // nobody has it
    }

    /// <summary>A base that is shorter grows, also under a disk that is longer below it.</summary>
    [Theory]
    [InlineData("qcow2")]
    [InlineData("raw")]
    public void A_base_that_is_shorter_grows(string format)
    {
        _files.Raw("raw", out byte[] content).Dispose();
        ulong half = SwitchFolder.Capacity / 2;
        if (format == "raw")
        {
            using FileStream file = File.OpenWrite(_files.PathOf("raw"));
            file.SetLength((long)half);
        }
        else
        {
            _files.Create("base", "raw", "raw", half);
        }

        string into = format == "raw" ? "raw" : "base";
        _files.Create("top", into, format);
        Array.Clear(content, (int)half, (int)half);
        VirtioBlk device = Device(2, 2);
        using (SwitchLoad load = new(device, content))
        {
            load.RunFor(40);
            BlkCommit commit = Begin(device, into, 0);
            AwaitMirrored(commit);
            commit.Seal();
            commit.Finish(s_patience);
            load.RunFor(40);
        }

        CheckContent(into, content);
    }

    [Fact]
    public void A_base_that_cannot_be_is_refused_and_the_disk_goes_on()
    {
        VirtioBlk device = Device(2, 2, out byte[] model);
        _files.Create("other", "disk.base", "raw");
        using (SwitchLoad load = new(device, model))
        {
            Refused(device, "other", "does not stand on");
            Refused(device, "top", "does not stand on", shared: false);
            using (RawFileBackend.Open(_files.PathOf("middle"), new RawFileOptions { ReadOnly = true, IsImage = true }))
            {
                Refused(device, "middle", "is used by another VM or program");
            }

            load.RunFor(40);
            Assert.Equal(4, ((Qcow2Disk)device.Disk).Images);
            BlkCommit commit = Begin(device, "middle", 1 << 20);
            Refused(device, "disk", "another job");
            load.RunFor(20);
            commit.Cancel(s_patience);
        }

        CheckContent("top", model);
    }

    [Fact]
    public void A_base_that_is_larger_than_the_disk_is_refused()
    {
        _files.Raw("raw", out byte[] model).Dispose();
        _files.Create("base", "raw", "raw");
        ulong half = SwitchFolder.Capacity / 2;
        _files.Create("top", "base", "qcow2", half);
        VirtioBlk device = Device(1, 1);
        byte[] seen = model[..(int)half];
        using (SwitchLoad load = new(device, seen))
        {
            Refused(device, "base", "more than the");
            load.RunFor(20);
        }

        CheckContent("top", seen);
    }

    private void Refused(VirtioBlk device, string into, string problem, bool shared = true)
    {
        BlockException error = Assert.Throws<BlockException>(() => shared ? Begin(device, into, 0) : BlkCommit.Begin(
            device, RawFileBackend.FromDescriptors(_files.PathOf(into), new RawFileOptions { IsImage = true }, OpenFile(into), null),
            s_patience, 0, PlainIoThreads.Instance));
        Assert.Contains(problem, error.Message, StringComparison.Ordinal);
    }

    private BlkCommit Begin(VirtioBlk device, string into, ulong rate) => BlkCommit.Begin(
        device, RawFileBackend.OpenBase(_files.PathOf(into), new RawFileOptions(), OpenFile(into)), s_patience, rate,
        PlainIoThreads.Instance);

    private FileDescriptorHandle OpenFile(string name) => BlockFile.Open(_files.PathOf(name), writable: true, direct: false);

    private static void AwaitMirrored(BlkCommit commit)
    {
        Assert.True(SpinWait.SpinUntil(() => commit.Report.State != MirrorState.Copying || commit.Report.Problem is not null, s_patience));
        Assert.Equal((MirrorState.Mirrored, null), (commit.Report.State, commit.Report.Problem));
        Assert.Equal(commit.TotalBytes, commit.Report.CopiedBytes);
    }

    private void CheckContent(string name, byte[] model)
    {
        bool isRaw = name is "disk.base" or "raw";
        Assert.Equal(model, _files.Content(name, isRaw ? "raw" : "qcow2"));
        if (!isRaw)
        {
            QemuImg.Run("check", _files.PathOf(name));
        }
    }

    // top over middle over disk (qcow2) over disk.base (raw).
    private VirtioBlk Device(int queues, int threads, out byte[] model)
    {
        _files.Qcow2("disk", out model).Dispose();
        _files.Create("middle", "disk", "qcow2");
        _files.Create("top", "middle", "qcow2");
        return Device(queues, threads);
    }

    private VirtioBlk Device(int queues, int threads) => new(
        DiskImageChain.Open(_files.PathOf("top"), new RawFileOptions()).ToDisk(),
        new VirtioBlkOptions { QueueCount = queues, IoThreads = threads, QueueSize = 16, PollMicroseconds = 0 });
}
