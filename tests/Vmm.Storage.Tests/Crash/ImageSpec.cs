namespace Vmm.Storage.Tests.Crash;

/// <summary>An image, or a chain of them, that <c>qemu-img</c> makes for a test.</summary>
/// <param name="Name">What tests call it.</param>
/// <param name="DiskSize">Bytes of the disk.</param>
internal sealed record ImageSpec(string Name, ulong DiskSize)
{
    /// <summary>Bytes of a cluster.</summary>
    public int ClusterSize { get; init; } = 64 << 10;

    /// <summary>Images of the chain, the top one with them.</summary>
    public int Depth { get; init; } = 1;

    /// <summary>The bottom is a raw file.</summary>
    public bool RawBase { get; init; }

    /// <summary>The bottom has fewer bytes than the disk.</summary>
    public bool ShortBase { get; init; }

    /// <summary>Nothing was written to the top.</summary>
    public bool FreshTop { get; init; }

    /// <summary>Some clusters are compressed.</summary>
    public bool Compressed { get; init; }

    /// <summary>More options of <c>qemu-img create</c>.</summary>
    public string Options { get; init; } = "";

    /// <summary>Places that requests of tests go to.</summary>
    public IReadOnlyList<(ulong From, ulong To)> Places => Workload.PlacesOf(DiskSize, (ulong)ClusterSize);

    /// <summary>All of them: whatever an image can be made of.</summary>
    public static IReadOnlyList<ImageSpec> All { get; } =
    [
        new("fresh", (64 << 20) + 1536) { FreshTop = true },
        new("fresh, 4 KiB", (12 << 20) + 512) { ClusterSize = 4096, FreshTop = true },
        new("64 KiB", (64 << 20) + 1536),
        new("4 KiB", (12 << 20) + 512) { ClusterSize = 4096 },
        new("512 bytes", 3 << 20) { ClusterSize = 512 },
        new("2 MiB", 1ul << 30) { ClusterSize = 2 << 20 },
        new("extended", (64 << 20) + 1536) { Options = ",extended_l2=on" },
        new("extended, 16 KiB, over qcow2", 40 << 20) { ClusterSize = 16 << 10, Depth = 2, Options = ",extended_l2=on" },
        new("compressed", (24 << 20) + 512) { Compressed = true },
        new("zstd, 4 KiB", 12 << 20) { ClusterSize = 4096, Compressed = true, Options = ",compression_type=zstd" },
        new("refcounts of 1 bit", 16 << 20) { ClusterSize = 4096, Options = ",refcount_bits=1" },
        new("refcounts of 64 bits", 16 << 20) { ClusterSize = 4096, Options = ",refcount_bits=64" },
        new("over raw", (32 << 20) + 512) { Depth = 2, RawBase = true, FreshTop = true },
        new("over a shorter raw", (32 << 20) + 512) { Depth = 2, RawBase = true, ShortBase = true },
        new("over qcow2", 32 << 20) { Depth = 2, FreshTop = true },
        new("chain of 4", (12 << 20) + 1024) { ClusterSize = 4096, Depth = 4, ShortBase = true, Compressed = true },
        new("chain of 16", 32 << 20) { Depth = 16, RawBase = true },
    ];

    public override string ToString() => Name;
}
