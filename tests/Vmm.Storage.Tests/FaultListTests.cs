using System.Buffers.Binary;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Tests.Crash;
using Vmm.Storage.Tests.Qcow2;

namespace Vmm.Storage.Tests;

/// <summary>
/// What went wrong in other engines, by name (docs/storage-conformance.md, "Faults of others"). What is not here has its test where its
/// part is tested.
/// </summary>
public sealed class FaultListTests(ImageStore images) : IClassFixture<ImageStore>, IDisposable
{
    private const int Cluster = 64 << 10;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-faults-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>Several queues at an overlay: each image has one owner of its tables, whatever the number of queues.</summary>
    [Theory]
    [InlineData("over qcow2")]
    [InlineData("over raw")]
    [InlineData("chain of 4")]
    public void Four_queues_at_an_overlay_leave_what_one_would(string image)
    {
        for (int seed = 500; seed < 503; seed++)
        {
            string? wrong = new Trial(images[image], Open, seed, queues: 4, requests: 60).RunClean();
            Assert.True(wrong is null, $"{image}, seed {seed}: {wrong}");
        }
    }

    /// <summary>A cluster that was dropped is free when that is durable, and everybody who may have seen it is gone.</summary>
    [Fact]
    public void A_freed_cluster_waits_for_its_drop_to_be_durable_and_for_who_may_have_seen_it()
    {
        FreedClusters freed = new();
        ClusterRun run = new(7, 2);
        int early = freed.Enter();
        freed.Add(run, generation: 5);
        freed.BecameDurable(4);
        Assert.False(freed.CanRelease); // a crash would bring the entry back that names it
        freed.BecameDurable(5);
        Assert.Empty(freed.TakeReleased()); // an operation that began before may still read it
        int late = freed.Enter();
        Assert.False(freed.CanRelease);
        Assert.True(freed.Exit(early));
        Assert.Equal([run], freed.TakeReleased()); // the late one cannot know it
        freed.Exit(late);
        Assert.False(freed.Any);
    }

    /// <summary>The file system is full at each step of changes of tables, one after the other.</summary>
    [Theory]
    [InlineData("fresh, 4 KiB")]
    [InlineData("over qcow2")]
    public void No_space_at_any_step_leaves_a_sound_image(string image)
    {
        for (int step = 1; step <= 16; step++)
        {
            string? wrong = new Trial(images[image], Open, seed: 900 + step, queues: 1, requests: 40)
                .RunFault(FileSteps.NeedSpace, step, DiskStatus.NoSpace, 3);
            Assert.True(wrong is null, $"{image}, step {step}: {wrong}");
        }
    }

    /// <summary>A table whose refcount is 0 is not handed out as a free cluster: the image is stopped, and says why.</summary>
    [Theory]
    [InlineData(40, "L1")]
    [InlineData(48, "the refcount table")]
    public void A_cluster_that_holds_a_table_is_never_handed_out(int pointerAt, string table)
    {
        string image = Path.Combine(_folder, "image.qcow2");
        QemuImg.Run("create", "-q", "-f", "qcow2", image, "8M");
        byte[] before = File.ReadAllBytes(image);
        ulong at = BinaryPrimitives.ReadUInt64BigEndian(before.AsSpan(pointerAt));
        ulong refcounts = BinaryPrimitives.ReadUInt64BigEndian(before.AsSpan((int)BinaryPrimitives.ReadUInt64BigEndian(before.AsSpan(48))));
        using (FileStream file = File.OpenWrite(image))
        {
            file.Position = (long)(refcounts + (at / Cluster * 2));
            file.Write([0, 0]);
        }

        BlockException? told = null;
        using (Qcow2Disk disk = Qcow2Disk.Open([Layer(image)], new Qcow2DiskOptions { Damaged = damage => told = damage }))
        using (DiskDriver driver = new(disk))
        {
            Assert.Equal(DiskStatus.IoError, driver.Write(0, new byte[512]));
            Assert.Equal(DiskStatus.IoError, driver.Write(4 << 20, new byte[512]));
        }

        Assert.NotNull(told);
        Assert.Contains("holds metadata", told.Message, StringComparison.Ordinal);
        byte[] after = File.ReadAllBytes(image);
        int bytes = Math.Min(Cluster, before.Length - (int)at); // the last cluster of a new file is not there in full
        Assert.True(after.AsSpan((int)at, bytes).SequenceEqual(before.AsSpan((int)at, bytes)), table);
        Assert.Equal((byte)Qcow2Incompatible.Corrupt, after[79]); // nobody else writes it before it was mended
    }

    /// <summary>
    /// At the end of its nodes all of a disk is in the file, also its tables: it may be copied, or handed to another process.
    /// </summary>
    [Fact]
    public void When_its_nodes_have_ended_a_copy_of_the_file_is_the_disk()
    {
        string image = Path.Combine(_folder, "image.qcow2"), copy = Path.Combine(_folder, "copy.qcow2"), raw = Path.Combine(_folder, "raw");
        QemuImg.Run("create", "-q", "-f", "qcow2", image, "8M");
        byte[] model = new byte[8 << 20];
        using Qcow2Disk disk = Qcow2Disk.Open([Layer(image)]);
        Random random = new(3);
        for (int round = 0; round < 3; round++)
        {
            using (DiskDriver driver = new(disk))
            {
                for (int i = 0; i < 40; i++)
                {
                    int at = random.Next(model.Length / 512) * 512, length = Math.Min(random.Next(1, 100) * 512, model.Length - at);
                    random.NextBytes(model.AsSpan(at, length));
                    Assert.Equal(DiskStatus.Ok, driver.Write((ulong)at, model.AsSpan(at, length)));
                }

                driver.Node.FlushAndClose(driver.Loop);
            }

            using (FileStream from = new(image, FileMode.Open, FileAccess.Read, FileShare.ReadWrite))
            using (FileStream to = File.Create(copy))
            {
                from.CopyTo(to);
            }

            File.WriteAllBytes(raw, model);
            Assert.Equal(0, QemuJudge.Check(copy).Errors); // clusters in reserve are leaks there
            Assert.Null(QemuJudge.Compare(copy, raw));
        }
    }

    /// <summary>Whole clusters are what can be given back, and the front end is told; a discard frees their blocks.</summary>
    [Fact]
    public void A_discard_gives_clusters_back_and_says_their_size()
    {
        string image = Path.Combine(_folder, "image.qcow2");
        QemuImg.Run("create", "-q", "-f", "qcow2", image, "8M");
        using (Qcow2Disk disk = Qcow2Disk.Open([Layer(image)]))
        using (DiskDriver driver = new(disk))
        {
            Assert.Equal((uint)Cluster, disk.Geometry.DiscardGranularity);
            Assert.Equal(DiskStatus.Ok, driver.Write(0, Enumerable.Repeat((byte)7, 4 << 20).ToArray()));
            Assert.Equal(DiskStatus.Ok, driver.Discard(0, 4 << 20));
            driver.Node.FlushAndClose(driver.Loop);
        }

        Assert.True(AllocatedBytes(image) < 2 << 20, $"{AllocatedBytes(image)} bytes are left");
        QemuImg.Run("check", "-q", image);
    }

    /// <summary>
    /// Bitmaps are not true any more once somebody writes who does not keep them: they are dropped by the rule of the format.
    /// </summary>
    [Fact]
    public void Bitmaps_are_dropped_when_an_image_is_opened_to_write()
    {
        string image = Path.Combine(_folder, "image.qcow2");
        QemuImg.Run("create", "-q", "-f", "qcow2", image, "8M");
        QemuImg.Run("bitmap", "--add", image, "changes");
        Assert.Equal(1, File.ReadAllBytes(image)[95]);
        using (Qcow2Disk disk = Qcow2Disk.Open([Layer(image)]))
        using (DiskDriver driver = new(disk))
        {
            Assert.Equal(DiskStatus.Ok, driver.Write(0, new byte[512]));
            driver.Node.FlushAndClose(driver.Loop);
        }

        Assert.Equal(0, File.ReadAllBytes(image)[95]);
        Assert.Equal(0, QemuJudge.Check(image).Errors);
    }

    /// <summary>What somebody left in a cluster that is free is nobody's: where the cluster is used again it reads as zeros.</summary>
    [Fact]
    public void A_free_cluster_that_holds_something_is_handed_out_as_zeros()
    {
        string image = Path.Combine(_folder, "image.qcow2");
        QemuImg.Run("create", "-q", "-f", "qcow2", image, "8M");
        using (FileStream file = File.OpenWrite(image))
        {
            file.Position = (file.Length + Cluster - 1) / Cluster * Cluster;
            file.Write(Enumerable.Repeat((byte)0xaa, 64 * Cluster).ToArray());
        }

        byte[] read = new byte[Cluster], expected = new byte[Cluster];
        expected.AsSpan(0, 512).Fill(7);
        using Qcow2Disk disk = Qcow2Disk.Open([Layer(image)]);
        using DiskDriver driver = new(disk);
        Assert.Equal(DiskStatus.Ok, driver.Write(1 << 20, expected.AsSpan(0, 512)));
        Assert.Equal(DiskStatus.Ok, driver.Read(1 << 20, read));
        Assert.True(read.AsSpan().SequenceEqual(expected));
    }

    /// <summary>A disk that hid the end of the image below it grows: what is new is zeros, and not what was hidden.</summary>
    [Fact]
    public void A_disk_that_grows_over_a_longer_base_shows_none_of_it()
    {
        string below = Path.Combine(_folder, "below.raw"), image = Path.Combine(_folder, "image.qcow2");
        File.WriteAllBytes(below, Enumerable.Repeat((byte)0xaa, 8 << 20).ToArray());
        QemuImg.Run("create", "-q", "-f", "qcow2", "-b", below, "-F", "raw", image, "4M");
        using Qcow2Disk disk = Qcow2Disk.Open(
            [Layer(image), new(new RawImageFile(RawFileBackend.Open(below, new() { IsImage = true, ReadOnly = true })), ImageFormat.Raw)]);
        using DiskDriver driver = new(disk);
        disk.Enlarge(8 << 20);
        byte[] read = new byte[4096];
        Assert.Equal(DiskStatus.Ok, driver.Read(6 << 20, read));
        Assert.Equal(new byte[4096], read);
        Assert.Equal(DiskStatus.Ok, driver.Read(2 << 20, read));
        Assert.Equal((byte)0xaa, read[0]);
    }

    /// <summary>A cluster that is given back has a refcount, or the image contradicts itself and is stopped.</summary>
    [Fact]
    public void A_cluster_whose_refcount_is_lost_stops_the_image_when_it_is_given_back()
    {
        string image = Path.Combine(_folder, "image.qcow2"), content = Path.Combine(_folder, "content");
        File.WriteAllBytes(content, Enumerable.Repeat((byte)7, Cluster * 4).ToArray());
        QemuImg.Run("convert", "-f", "raw", "-O", "qcow2", content, image);
        byte[] before = File.ReadAllBytes(image);
        ulong refcounts = BinaryPrimitives.ReadUInt64BigEndian(before.AsSpan((int)BinaryPrimitives.ReadUInt64BigEndian(before.AsSpan(48))));
        using (FileStream file = File.OpenWrite(image))
        {
            file.Position = (long)refcounts;
            file.Write(before.AsSpan((int)refcounts, 8)); // header and tables
            file.Write(new byte[(before.Length / Cluster * 2) - 8]);
        }

        BlockException? told = null;
        using (Qcow2Disk disk = Qcow2Disk.Open([Layer(image)], new Qcow2DiskOptions { Damaged = damage => told = damage }))
        using (DiskDriver driver = new(disk))
        {
            Assert.Equal(DiskStatus.Ok, driver.Discard(0, 2 * Cluster));
            _ = driver.Flush();
        }

        Assert.NotNull(told);
        Assert.Contains("was in use, and its refcount is 0", told.Message, StringComparison.Ordinal);
        Assert.Equal((byte)Qcow2Incompatible.Corrupt, File.ReadAllBytes(image)[79]);
    }

    /// <summary>
    /// Tables that memory has no room for: a changed one leaves it only when it was written, and is found by everybody until then.
    /// </summary>
    [Theory]
    [InlineData("fresh, 4 KiB")]
    [InlineData("over qcow2")]
    [InlineData("chain of 4")]
    public void A_table_that_leaves_memory_was_written_before(string image)
    {
        for (int seed = 700; seed < 706; seed++)
        {
            Trial trial = new(images[image], OpenWithLittleMemory, seed, queues: 1 << (seed % 3), requests: 60);
            string? wrong = seed % 2 == 0 ? trial.RunClean() : trial.RunCut(20 * (seed - 699), outcomes: 2);
            Assert.True(wrong is null, $"{image}, seed {seed}: {wrong}");
        }
    }

    /// <summary>
    /// A writer that keeps refcounts in memory was not closed: they are not what the tables say, and that is no damage. The image is read;
    /// before it is written they are mended.
    /// </summary>
    [Theory]
    [InlineData(Qcow2Incompatible.Dirty, "was not closed by its last writer")]
    [InlineData(Qcow2Incompatible.Corrupt, "is marked as damaged")]
    public void An_image_whose_refcounts_may_be_wrong_is_read_and_not_written(Qcow2Incompatible mark, string why)
    {
        string image = Path.Combine(_folder, "image.qcow2");
        QemuImg.Run("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", image, "8M");
        using (FileStream file = File.OpenWrite(image))
        {
            file.Position = 79;
            file.WriteByte((byte)mark);
        }

        BlockException refused = Assert.Throws<BlockException>(() => Qcow2Disk.Open([Layer(image)]));
        Assert.Contains(why, refused.Message, StringComparison.Ordinal);
        Assert.Contains($"vmmctl disk check --repair {image}", refused.Message, StringComparison.Ordinal);
        byte[] read = new byte[512];
        using (Qcow2Disk disk = Qcow2Disk.Open([Layer(image, readOnly: true)]))
        using (DiskDriver driver = new(disk))
        {
            Assert.Equal(DiskStatus.Ok, driver.Read(0, read));
        }

        Assert.Equal((byte)mark, File.ReadAllBytes(image)[79]);
    }

    private static long AllocatedBytes(string path)
    {
        using System.Diagnostics.Process du = System.Diagnostics.Process.Start(
            new System.Diagnostics.ProcessStartInfo("du", ["-B1", path]) { RedirectStandardOutput = true, UseShellExecute = false })!;
        string said = du.StandardOutput.ReadToEnd();
        du.WaitForExit();
        return long.Parse(said.Split('\t')[0], System.Globalization.CultureInfo.InvariantCulture);
    }

    private static IDiskBackend Open(TestImage image, IReadOnlyList<IImageFile> files) => Open(image, files, new());

    // Room for eight pieces of tables, the fewest there can be.
    private static IDiskBackend OpenWithLittleMemory(TestImage image, IReadOnlyList<IImageFile> files) =>
        Open(image, files, new() { CacheBytes = 1 });

    private static Qcow2Disk Open(TestImage image, IReadOnlyList<IImageFile> files, Qcow2DiskOptions options) => Qcow2Disk.Open(
        [.. files.Select((file, layer) => new ImageLayer(file, image.IsQcow2(layer) ? ImageFormat.Qcow2 : ImageFormat.Raw))], options);

    private static ImageLayer Layer(string path, bool readOnly = false) => new(
        new RawImageFile(RawFileBackend.Open(path, new() { IsImage = true, Cache = DiskCacheMode.Buffered, ReadOnly = readOnly })),
        ImageFormat.Qcow2);
}
