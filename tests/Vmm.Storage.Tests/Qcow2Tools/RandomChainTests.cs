using System.Text.Json;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Qcow2Tools;

/// <summary>
/// Chains of sixteen images over a base, half of them made and written by QEMU's tools, half by ours, in turns that chance decides:
/// clusters of every size, images larger and smaller than what is below. Both read every byte of each alike. <c>VMM_DISK_CHAINS</c> is the
/// number of chains, <c>VMM_DISK_SEED</c> the first seed.
/// </summary>
[Collection(Scratch.Alone)]
public sealed class RandomChainTests
{
    private const int Depth = 16, SmallestDisk = 4 << 20, LargestDisk = 8 << 20, LongestWrite = 256 << 10;

    [QemuFact]
    public void Chains_made_half_by_qemu_read_alike_in_both()
    {
        int chains = HostileImages.Number("VMM_DISK_CHAINS") ?? 2, first = HostileImages.Number("VMM_DISK_SEED") ?? 0;
        for (int seed = first; seed < first + chains; seed++)
        {
            try
            {
                Run(new Random(seed));
            }
            catch (Exception wrong)
            {
                throw new InvalidOperationException($"seed {seed}: {wrong.Message}", wrong);
            }
        }
    }

    private static void Run(Random random)
    {
        using Scratch scratch = new();
        bool[] ours = [.. Enumerable.Range(0, Depth).Select(i => i % 2 == 0)];
        random.Shuffle(ours);
        bool rawBase = random.Next(2) == 0;
        byte[] model = Base(scratch["0"], rawBase, random);
        for (int layer = 1; layer <= Depth; layer++)
        {
            string path = scratch[$"{layer}"], below = $"{layer - 1}", format = layer == 1 && rawBase ? "raw" : "qcow2";
            // A disk sees nothing behind the end of one that it lies on, and the next one that is longer sees zeros there.
            Array.Resize(ref model, random.Next(3) == 0 ? Size(random) : model.Length);
            if (ours[layer - 1])
            {
                Qcow2CreateOptions like = Like(random) with { DiskSize = (ulong)model.Length, BackingFile = below, BackingFormat = format };
                Qcow2Creator.Create(path, like);
                WriteHere(path, model, random);
            }
            else
            {
                string options = $"{Options(random)},backing_file={below},backing_fmt={format}";
                QemuImg.Do("create", "-q", "-f", "qcow2", "-o", options, path, $"{model.Length}");
                WriteByQemu(path, scratch["pattern"], model, random);
            }
        }

        File.WriteAllBytes(scratch["model"], model);
        Judge(scratch, model, rawBase);
    }

    private static void Judge(Scratch scratch, byte[] model, bool rawBase)
    {
        string top = scratch[$"{Depth}"];
        for (int layer = rawBase ? 1 : 0; layer <= Depth; layer++)
        {
            (int code, _, _, string said) = QemuImg.Check(scratch[$"{layer}"]);
            Assert.True(code == 0, $"layer {layer}: qemu-img check: {said}");
            using RawImageFile file = ImageFiles.Open(scratch[$"{layer}"], writable: false);
            CheckReport report = Qcow2Check.Run(file);
            Assert.True(report.IsClean, $"layer {layer}: our check: {string.Join("; ", report.Findings.Take(5).Select(f => f.Text))}");
        }

        QemuImg.Do("compare", "-f", "qcow2", "-F", "raw", top, scratch["model"]);
        ImageConvert.Run(top, scratch["flat"], new() { SourceFormat = "qcow2", TargetFormat = "raw" });
        Assert.True(File.ReadAllBytes(scratch["flat"]).AsSpan().SequenceEqual(model), "the converted disk differs from the model");
        using (Qcow2Disk disk = DiskImageChain.Open(top, new RawFileOptions { Cache = DiskCacheMode.Buffered }).ToDisk())
        using (DiskDriver driver = new(disk))
        {
            byte[] seen = new byte[model.Length];
            Assert.Equal(DiskStatus.Ok, driver.Read(0, seen));
            Assert.True(seen.AsSpan().SequenceEqual(model), "the disk in use differs from the model");
        }

        SameMap(top, rawBase);
    }

    // Both say of every part from which image it comes; where QEMU found a hole of a raw base, we say data.
    private static void SameMap(string top, bool rawBase)
    {
        DiskExtent[] ours = [.. ImageMap.Read(top, "qcow2", ToolProgress.None)];
        using JsonDocument map = JsonDocument.Parse(QemuImg.Do("map", "-f", "qcow2", "--output=json", top));
        int at = 0;
        foreach (JsonElement part in map.RootElement.EnumerateArray())
        {
            ulong start = part.GetProperty("start").GetUInt64(), end = start + part.GetProperty("length").GetUInt64();
            bool isData = part.GetProperty("data").GetBoolean();
            int depth = part.GetProperty("depth").GetInt32();
            for (; at < ours.Length && ours[at].Start < end; at++)
            {
                DiskExtent extent = ours[at];
                bool hasData = extent.Kind is DiskExtentKind.Data or DiskExtentKind.Compressed;
                bool hole = hasData && !isData && rawBase && extent.Depth == Depth;
                Assert.True(hole || (hasData == isData && (!isData || depth == extent.Depth)), $"we say {extent}, qemu-img {part}");
                if (extent.Start + extent.Length > end)
                {
                    break; // it goes on in QEMU's next part
                }
            }
        }
    }

    private static byte[] Base(string path, bool raw, Random random)
    {
        byte[] model = new byte[Size(random)];
        if (raw)
        {
            random.NextBytes(model.AsSpan(random.Next(model.Length / 2)));
            File.WriteAllBytes(path, model);
        }
        else
        {
            Qcow2Creator.Create(path, Like(random) with { DiskSize = (ulong)model.Length });
            WriteHere(path, model, random);
        }

        return model;
    }

    private static int Size(Random random) => random.Next(SmallestDisk / 512, LargestDisk / 512) * 512;

    private static Qcow2CreateOptions Like(Random random)
    {
        int bits = random.Next(9, 22);
        bool extended = bits >= 14 && random.Next(2) == 0;
        return new() { DiskSize = 512, ClusterBits = bits, RefcountOrder = random.Next(0, 7), ExtendedL2 = extended };
    }

    private static string Options(Random random)
    {
        Qcow2CreateOptions like = Like(random);
        string extended = like.ExtendedL2 ? "on" : "off";
        return $"cluster_size={1 << like.ClusterBits},refcount_bits={1 << like.RefcountOrder},extended_l2={extended}";
    }

    // Through the engine, as a guest does.
    private static void WriteHere(string path, byte[] model, Random random)
    {
        using Qcow2Disk disk = DiskImageChain.Open(path, new RawFileOptions { Cache = DiskCacheMode.Buffered }).ToDisk();
        using DiskDriver driver = new(disk);
        foreach ((int at, int length) in Places(model.Length, random))
        {
            byte[] data = new byte[length];
            switch (random.Next(6))
            {
                case 0:
                    Assert.Equal(DiskStatus.Ok, driver.WriteZeroes((ulong)at, (ulong)length, mayUnmap: random.Next(2) == 0));
                    model.AsSpan(at, length).Clear();
                    break;
                case 1:
                    Assert.Equal(DiskStatus.Ok, driver.Discard((ulong)at, (ulong)length));
                    Assert.Equal(DiskStatus.Ok, driver.Read((ulong)at, data));
                    data.CopyTo(model, at); // whatever it leaves, it stays so
                    break;
                default:
                    random.NextBytes(data);
                    Assert.Equal(DiskStatus.Ok, driver.Write((ulong)at, data));
                    data.CopyTo(model, at);
                    break;
            }
        }

        Assert.Equal(DiskStatus.Ok, driver.Flush());
    }

    private static void WriteByQemu(string path, string pattern, byte[] model, Random random)
    {
        byte[] data = new byte[LongestWrite];
        random.NextBytes(data);
        File.WriteAllBytes(pattern, data);
        List<string> commands = [];
        foreach ((int at, int length) in Places(model.Length, random))
        {
            if (random.Next(6) == 0)
            {
                commands.Add($"write -z {(random.Next(2) == 0 ? "-u " : "")}{at} {length}");
                model.AsSpan(at, length).Clear();
            }
            else
            {
                commands.Add($"write -s {pattern} {at} {length}");
                data.AsSpan(0, length).CopyTo(model.AsSpan(at));
            }
        }

        Crash.QemuJudge.Io(path, commands);
    }

    private static IEnumerable<(int At, int Length)> Places(int size, Random random)
    {
        for (int i = random.Next(3, 12); i > 0; i--)
        {
            int length = random.Next(1, LongestWrite / 512) * 512;
            yield return (random.Next(0, (size - length) / 512) * 512, length);
        }
    }
}
