using System.Globalization;
using System.Security.Cryptography;
using Vmm.Interop;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Tests.Crash;

namespace Vmm.Storage.Tests.Qcow2Tools;

/// <summary>
/// Chains of all kinds, made half by QEMU's tools and half here, are streamed; <c>qemu-img</c> says whether the disk is the same. Their
/// number is set by <c>VMM_DISK_CHAINS</c>.
/// </summary>
[Collection(Scratch.Alone)]
public sealed class ImageStreamTests
{
    [QemuFact]
    public void Any_chain_keeps_its_content_onto_any_base()
    {
        int chains = int.Parse(Environment.GetEnvironmentVariable("VMM_DISK_CHAINS") ?? "12", CultureInfo.InvariantCulture);
        for (int seed = 0; seed < chains; seed++)
        {
            using Scratch scratch = new();
            Random random = new(seed);
            RandomChain chain = RandomChain.Make(scratch, random, deepest: seed % 4 == 3 ? 16 : 5);
            QemuImg.Do("convert", "-f", "qcow2", "-O", "raw", chain.Top, scratch["before"]);
            string[] below = [.. chain.Files.SkipLast(1).Select(Hash)];
            int target = random.Next(-1, chain.Files.Count - 1);

            ImageStream.Run(chain.Top, target < 0 ? null : chain.Files[target]);

            string what = $"seed {seed}, {chain.Text}, onto {target}";
            (int code, string text) = QemuImg.Run("compare", "-f", "qcow2", "-F", "raw", chain.Top, scratch["before"]);
            Assert.True(code == 0, $"{what}: {text}");
            Assert.True(QemuImg.Check(chain.Top).ExitCode == 0, $"{what}: {QemuImg.Check(chain.Top).Output}");
            Assert.Equal(below, chain.Files.SkipLast(1).Select(Hash));
            foreach (string gone in chain.Files.SkipLast(1).Skip(target + 1))
            {
                File.Delete(gone); // nothing of them is needed
            }

            Assert.Equal(0, QemuImg.Run("compare", "-f", "qcow2", "-F", "raw", chain.Top, scratch["before"]).ExitCode);
        }
    }

    /// <summary>What reads as zeros takes no space, and what is not between the top and the base is not copied.</summary>
    [QemuFact]
    public void Only_what_is_between_is_copied()
    {
        using Scratch scratch = new();
        QemuImg.Do("create", "-f", "qcow2", scratch["base"], "64M");
        Damage.Write(scratch["base"], "write -P 1 0 16M");
        QemuImg.Do("create", "-f", "qcow2", "-b", scratch["base"], "-F", "qcow2", scratch["middle"]);
        Damage.Write(scratch["middle"], "write -P 2 8M 1M", "write -z -u 10M 4M", "write -z -u 40M 4M");
        QemuImg.Do("create", "-f", "qcow2", "-b", scratch["middle"], "-F", "qcow2", scratch["top"]);
        ulong before = ImageFiles.AllocatedBytes(scratch["top"]);

        ImageStream.Run(scratch["top"], scratch["base"]);

        Assert.InRange(ImageFiles.AllocatedBytes(scratch["top"]) - before, 1ul << 20, (1ul << 20) + (512 << 10));
        QemuImg.Do("compare", "-f", "qcow2", "-F", "qcow2", scratch["top"], scratch["middle"]);
        string info = QemuImg.Do("info", "--output=json", scratch["top"]);
        Assert.Contains($"\"backing-filename\": \"{scratch["base"]}\"", info, StringComparison.Ordinal);
    }

    [QemuFact]
    public void A_stream_that_is_ended_amid_it_leaves_the_disk_and_can_be_done_again()
    {
        using Scratch scratch = new();
        QemuImg.Do("create", "-f", "qcow2", scratch["base"], "64M");
        Damage.Write(scratch["base"], "write -P 1 0 60M");
        QemuImg.Do("create", "-f", "qcow2", "-b", scratch["base"], "-F", "qcow2", scratch["top"]);
        using CancellationTokenSource end = new();

        Assert.Throws<OperationCanceledException>(() => ImageStream.Run(scratch["top"], null, new ToolProgress(done =>
        {
            if (done > 0.4)
            {
                end.Cancel();
            }
        }, end.Token)));

        Assert.Equal(0, QemuImg.Check(scratch["top"]).ExitCode);
        QemuImg.Do("compare", "-f", "qcow2", "-F", "qcow2", scratch["top"], scratch["base"]);
        ImageStream.Run(scratch["top"], null);
        Assert.Equal(0, QemuImg.Check(scratch["top"]).ExitCode);
        QemuImg.Do("compare", "-f", "qcow2", "-F", "qcow2", scratch["top"], scratch["base"]);
        Assert.DoesNotContain("backing", QemuImg.Do("info", scratch["top"]), StringComparison.Ordinal);
    }

    [QemuFact]
    public void A_base_that_is_not_below_is_refused_by_name()
    {
        using Scratch scratch = new();
        QemuImg.Do("create", "-f", "qcow2", scratch["other"], "1M");
        QemuImg.Do("create", "-f", "qcow2", scratch["base"], "1M");
        QemuImg.Do("create", "-f", "qcow2", "-b", scratch["base"], "-F", "qcow2", scratch["top"]);
        string before = Hash(scratch["top"]);
        foreach (string wrong in new[] { scratch["other"], scratch["top"], scratch["missing"] })
        {
            BlockException error = Assert.Throws<BlockException>(() => ImageStream.Run(scratch["top"], wrong));
            Assert.Contains(wrong, error.Message, StringComparison.Ordinal);
            Assert.Contains(scratch["base"], error.Message, StringComparison.Ordinal);
        }

        Assert.Equal(before, Hash(scratch["top"]));
    }

    [QemuFact]
    public void What_a_guest_asks_for_beside_a_stream_allocates_nothing()
    {
        using Scratch scratch = new();
        QemuImg.Do("create", "-f", "qcow2", scratch["base"], "192M");
        Damage.Write(scratch["base"], "write -P 1 0 192M");
        QemuImg.Do("create", "-f", "qcow2", "-b", scratch["base"], "-F", "qcow2", scratch["top"]);
        using Qcow2Disk disk = DiskImageChain.Open(scratch["top"], new RawFileOptions { Cache = DiskCacheMode.Buffered }).ToDisk();
        using DiskDriver driver = new(disk, 32);
        using NativeArray<byte> memory = new(4096, 4096);
        using NativeArray<IoVector> vector = new(1);
        vector.Span[0] = new IoVector(memory.AddressOf(0), 4096);
        long beside = long.MaxValue;
        bool streamed = false;
        Thread stream = new(() => streamed = BringAll(disk));
        stream.Start();
        do
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 64; i++)
            {
                BlockRequest request = driver[i % 32];
                ulong at = (ulong)(i * 37 % 64) * 4096;
                BlockKind kind = (i % 4) switch { 0 => BlockKind.Flush, 1 => BlockKind.Write, 2 => BlockKind.Discard, _ => BlockKind.Read };
                request.Prepare(kind, at, 4096);
                request.SetData(vector.Span);
                driver.Node.Submit(request);
                if (i % 32 == 31)
                {
                    driver.WaitForAll();
                }
            }

            beside = Math.Min(beside, GC.GetAllocatedBytesForCurrentThread() - before);
        }
        while (stream.IsAlive);
        Assert.Equal((0, true), (beside, streamed));
    }

    private static bool BringAll(Qcow2Disk disk)
    {
        using ChainPopulate populate = new(disk, disk.Images);
        bool sound = true;
        for (ulong at = 0; at < disk.Geometry.CapacityBytes; at += 1 << 20)
        {
            sound &= populate.Bring(at, 1 << 20) == DiskStatus.Ok;
        }

        return sound && populate.Copied > 180 << 20;
    }

    /// <summary>Names of every length, short and long, before and after: QEMU reads the one that was written.</summary>
    [QemuTheory]
    [InlineData("4k")]
    [InlineData("64k")]
    public void A_name_of_any_length_replaces_a_name_of_any_length(string cluster)
    {
        using Scratch scratch = new();
        int[] lengths = [0, 1, 300, 1023];
        string top = scratch["top"];
        foreach ((int from, int to) in lengths.SelectMany(from => lengths.Select(to => (from, to))))
        {
            QemuImg.Do("create", "-q", "-f", "qcow2", "-o", $"cluster_size={cluster}", top, "1M");
            if (from > 0)
            {
                ImageRebase.Rename(top, new string('a', from), "raw");
            }

            ImageRebase.Rename(top, to == 0 ? null : new string('b', to), to == 0 ? null : "qcow2");
            string info = QemuImg.Do("info", "-U", "--output=json", top);
            Assert.Equal(to > 0, info.Contains($"\"backing-filename\": \"{new string('b', to)}\"", StringComparison.Ordinal));
            Assert.Equal(to > 0, info.Contains("\"backing-filename-format\": \"qcow2\"", StringComparison.Ordinal));
        }
    }

    /// <summary>The power goes at every step: the image names the old file or the new one, and nothing between.</summary>
    [QemuTheory]
    [InlineData(5, 5)]
    [InlineData(900, 1000)]
    [InlineData(1000, 20)]
    [InlineData(700, 0)]
    [InlineData(0, 700)]
    public void A_change_of_the_name_that_is_cut_off_leaves_the_old_name_or_the_new_one(int from, int to)
    {
        using Scratch scratch = new();
        (string? was, string? becomes) = (from == 0 ? null : new string('a', from), to == 0 ? null : new string('b', to));
        QemuImg.Do("create", "-q", "-f", "qcow2", scratch["top"], "1M");
        ImageRebase.Rename(scratch["top"], was, was is null ? null : "raw");
        SparseBytes content = SparseBytes.Load(scratch["top"]);
        Random random = new(from + to);
        int steps = int.MaxValue;
        for (int cut = 1; cut <= steps; cut++)
        {
            using CrashFile file = new(content, cut);
            file.Plan(f => f.CutAt(cut));
            try
            {
                BackingName.Write(file, becomes, becomes is null ? null : "qcow2");
                steps = cut;
            }
            catch (BlockException)
            {
                // the power went
            }

            for (int i = 0; i < 12; i++)
            {
                using CrashFile now = new(file.CutPower(random));
                Qcow2Header header = ImageFiles.ReadHeader(now);
                Assert.True(header.BackingFile == was || header.BackingFile == becomes, $"cut {cut}: {header.BackingFile}");
                Assert.True(header.BackingFile is null || header.BackingFormat == (header.BackingFile == was ? "raw" : "qcow2"));
            }
        }

        Assert.True(steps > 2, $"only {steps} steps");
    }

    private static string Hash(string path) => Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(path)));
}
