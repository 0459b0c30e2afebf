using System.CommandLine;
using System.Numerics;
using Vmm.Cli.Remote;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Cli.Disks;

/// <summary>The options that say what a new image file is like; <c>disk create</c> and <c>disk convert</c> have them.</summary>
internal sealed class DiskFileOptions
{
    private readonly Option<string?> _clusterSize =
        new("--cluster-size")
        {
            Description = "Of a qcow2 file: 512 to 2MiB [default: 64KiB; 128KiB with a backing file]",
            HelpName = "size",
        };
    private readonly Option<int?> _refcountBits =
        new("--refcount-bits") { Description = "Of a qcow2 file: 1, 2, 4, … 64 [default: 16]", HelpName = "number" };
    private readonly Option<bool> _extended =
        new("--extended-l2")
        {
            Description = "Of a qcow2 file: tell 32 parts of a cluster apart [default with a backing file]",
        };
    private readonly Option<bool> _lazy =
        new("--lazy-refcounts") { Description = "Of a qcow2 file: writers may keep refcounts in memory" };
    private readonly Option<string?> _compression =
        new("--compression") { Description = "Of a qcow2 file: zlib or zstd [default: zlib]", HelpName = "type" };

    internal DiskFileOptions() => _compression.AcceptOnlyFromAmong("zlib", "zstd");

    /// <summary>All of them.</summary>
    internal Symbol[] All => [_clusterSize, _refcountBits, _extended, _lazy, _compression, Force];

    /// <summary>Replaces a file that exists.</summary>
    internal Option<bool> Force { get; } = new("--force") { Description = "Replace a file that exists and that nobody uses" };

    /// <summary>True when one of them was given.</summary>
    internal bool Any(ParseResult parsed) =>
        All.Any(option => parsed.GetResult(option) is System.CommandLine.Parsing.OptionResult { Implicit: false });

    /// <summary>What they say.</summary>
    /// <param name="parsed">The command line.</param>
    /// <param name="size">Bytes of the disk.</param>
    /// <param name="isOver">
    /// It has a backing file. Then a cluster is told apart in parts of 4 KiB unless its size is given: a first write of a page copies
    /// nothing from below.
    /// </param>
    /// <exception cref="UsageException">One of them cannot be.</exception>
    internal Qcow2CreateOptions Read(ParseResult parsed, ulong size, bool isOver = false) => new()
    {
        DiskSize = size,
        ClusterBits = parsed.GetValue(_clusterSize) is { } text
            ? Power("--cluster-size", Size("--cluster-size", text))
            : isOver ? 17 : 16,
        RefcountOrder = Power("--refcount-bits", (ulong)Math.Max(0, parsed.GetValue(_refcountBits) ?? 16)),
        ExtendedL2 = parsed.GetValue(_extended) || (isOver && parsed.GetValue(_clusterSize) is null),
        LazyRefcounts = parsed.GetValue(_lazy),
        Compression = parsed.GetValue(_compression) is "zstd" ? Qcow2Compression.Zstd : Qcow2Compression.Deflate,
    };

    /// <summary>A size in bytes.</summary>
    /// <exception cref="UsageException">It is none.</exception>
    internal static ulong Size(string option, string text) =>
        SpecText.TryParseSize(text, out ByteSize bytes) && (ulong)bytes <= long.MaxValue
        ? (ulong)bytes
        : throw new UsageException($"{option} {text}: expected a size such as 512MiB or 1.5GiB, a whole number of bytes");

    /// <summary>An option that names a format.</summary>
    internal static Option<string> Format(string name, string what)
    {
        Option<string> option =
            new(name) { Description = what + ": qcow2 or raw", HelpName = "format", DefaultValueFactory = _ => "qcow2" };
        return option.AcceptOnlyFromAmong("qcow2", "raw");
    }

    private static int Power(string option, ulong value) => BitOperations.IsPow2(value)
        ? BitOperations.Log2(value)
        : throw new UsageException($"{option}: expected a power of two, not {value}");
}
