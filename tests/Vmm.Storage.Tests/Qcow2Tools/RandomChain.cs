using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Storage.Tests.Qcow2Tools;

/// <summary>A chain of images of any kind and size over one another, raw or qcow2 at the bottom.</summary>
internal sealed record RandomChain(IReadOnlyList<string> Files, string Text)
{
    private static readonly string[] s_options =
        ["cluster_size=64k", "cluster_size=4k", "cluster_size=512", "cluster_size=64k,extended_l2=on", "cluster_size=16k,extended_l2=on",
            "cluster_size=2M", "cluster_size=64k,compat=0.10", "cluster_size=32k,compression_type=zstd"];

    /// <summary>The image that is the disk.</summary>
    internal string Top => Files[^1];

    /// <summary>Makes one in a folder.</summary>
    internal static RandomChain Make(Scratch scratch, Random random, int deepest)
    {
        List<string> files = [], text = [];
        int depth = random.Next(2, deepest + 1);
        for (int i = 0; i < depth; i++)
        {
            string path = scratch[$"image-{i}"];
            ulong size = (ulong)random.Next(3 << 11, 12 << 11) * 512;
            bool raw = i == 0 && random.Next(2) == 0;
            string options = s_options[random.Next(s_options.Length)];
            string format = text.Count > 0 && text[^1].StartsWith("raw", StringComparison.Ordinal) ? "raw" : "qcow2";
            text.Add(raw ? $"raw of {size}" : $"{options} of {size}");
            if (raw)
            {
                ImageFiles.CreateRaw(path, size);
            }
            else if (random.Next(2) == 0)
            {
                string[] backing = i == 0 ? [] : ["-b", Path.GetFileName(files[^1]), "-F", format];
                QemuImg.Do(["create", "-q", "-f", "qcow2", "-u", "-o", options, .. backing, path, $"{size}"]);
            }
            else
            {
                Qcow2Creator.Create(path, Own(options, size, i == 0 ? null : Path.GetFileName(files[^1]), i == 0 ? null : format));
            }

            bool zeros = !raw && !options.Contains("0.10", StringComparison.Ordinal);
            Damage.WriteAs(raw ? "raw" : "qcow2", path, [.. Writes(random, size, i + 1, zeros)]);
            files.Add(path);
        }

        return new RandomChain(files, string.Join(" < ", text));
    }

    private static Qcow2CreateOptions Own(string options, ulong size, string? backing, string? format) => new()
    {
        DiskSize = size,
        ClusterBits = options.Contains("=512", StringComparison.Ordinal) ? 9 : options.Contains("=4k", StringComparison.Ordinal) ? 12 : 16,
        ExtendedL2 = options.Contains("extended", StringComparison.Ordinal),
        BackingFile = backing,
        BackingFormat = format,
    };

    private static IEnumerable<string> Writes(Random random, ulong size, int pattern, bool zeros)
    {
        if (zeros && random.Next(2) == 0)
        {
            yield return $"write -c -P {pattern + 100} 0 2M"; // whole clusters of every size, which are new
        }

        for (int i = random.Next(2, 9); i > 0; i--)
        {
            ulong at = (ulong)random.NextInt64((long)size / 512) * 512, length = Math.Min(size - at, (ulong)random.Next(1, 800) * 512);
            if (random.Next(3) == 0)
            {
                at = at / (64 << 10) * (64 << 10);
                length = Math.Min(size - at, (ulong)random.Next(1, 10) * (64 << 10));
            }

            yield return zeros && random.Next(4) == 0 ? $"write -z {(random.Next(2) == 0 ? "-u " : "")}{at} {length}"
                : $"write -P {pattern} {at} {length}";
        }
    }
}
