using System.Text.Json.Serialization;

namespace Vmm.Cli.Disks;

/// <summary>An image as <c>disk info</c> and <c>disk chain</c> print it; sizes in bytes.</summary>
internal sealed record ImageView(
    string File,
    string Format,
    ulong VirtualSize,
    ulong FileSize,
    ulong AllocatedSize,
    string? BackingFile = null,
    string? BackingFormat = null,
    Qcow2View? Qcow2 = null);

/// <summary>A disk of a server; sizes in bytes.</summary>
internal sealed record ServerView(string Server, ulong Size, int BlockSize, int PreferredBlockSize);

/// <summary>What only a qcow2 image has.</summary>
internal sealed record Qcow2View(
    uint Version,
    uint ClusterSize,
    int RefcountBits,
    bool ExtendedL2,
    bool LazyRefcounts,
    string Compression,
    bool Dirty,
    bool Corrupt,
    IReadOnlyList<SnapshotView> Snapshots,
    IReadOnlyList<BitmapView> Bitmaps,
    IReadOnlyList<string> Problems);

/// <summary>An internal snapshot.</summary>
internal sealed record SnapshotView(string Id, string Name, DateTimeOffset Time, ulong StateBytes);

/// <summary>A bitmap.</summary>
internal sealed record BitmapView(string Name, ulong Granularity, bool Inconsistent);

/// <summary>What a check found and mended.</summary>
internal sealed record CheckView(
    string File,
    ulong Corruptions,
    ulong Leaks,
    ulong CorruptionsMended,
    ulong LeaksMended,
    ulong EndOffset,
    ulong TotalClusters,
    ulong AllocatedClusters,
    ulong CompressedClusters,
    IReadOnlyList<FindingView> Findings);

/// <summary>One finding.</summary>
internal sealed record FindingView(string Kind, ulong Offset, string Text);

/// <summary>A part of a disk.</summary>
internal sealed record ExtentView(ulong Start, ulong Length, int Depth, string Kind, ulong? Offset, string? File);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(ImageView))]
[JsonSerializable(typeof(ServerView))]
[JsonSerializable(typeof(IReadOnlyList<ImageView>))]
[JsonSerializable(typeof(CheckView))]
[JsonSerializable(typeof(IReadOnlyList<ExtentView>))]
[JsonSerializable(typeof(PointView))]
[JsonSerializable(typeof(IReadOnlyList<PointView>))]
[JsonSerializable(typeof(IReadOnlyList<PointDiskView>))]
internal sealed partial class DiskFileJson : JsonSerializerContext;
