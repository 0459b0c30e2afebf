using System.Text.Json.Serialization;

namespace Vmm.Spec.Devices;

using Pmem = FieldsOf<PmemSpec>;

/// <summary>Persistent memory: a file of the host that the guest maps instead of reading it (virtio 1.2 section 5.19).</summary>
public sealed record PmemSpec : DeviceSpec
{
    /// <summary>What the file's length is a multiple of: 2 MiB, which Linux maps at once.</summary>
    public const ulong Granule = 2 << 20;

    /// <inheritdoc/>
    public override string Kind => "pmem";

    /// <summary>The file.</summary>
    public string Path { get; init; } = "";

    /// <summary>The guest's writes are refused by the host.</summary>
    public bool ReadOnly { get; init; }

    /// <inheritdoc/>
    public override IReadOnlyList<DeviceFile> Files => [new DeviceFile("image", Path, !ReadOnly)];

    /// <inheritdoc/>
    public override bool ReachesFiles => true; // its flushes

    internal static DeviceKind Registration { get; } = DeviceKind.Of(
        "pmem",
        "Persistent memory: a file of the host that the guest maps (/dev/pmem0), for DAX file systems and root images that many "
            + "guests share",
        PmemJson.Default.PmemSpec,
        Pmem.Path("path", "Image, a multiple of 2MiB long; relative to the spec file",
            p => p.Path, (p, v) => p with { Path = v }) with
        { Required = true },
        Pmem.Bool("readOnly", "The guest may read it and nothing else; several VMs can have it then",
            p => p.ReadOnly, (p, v) => p with { ReadOnly = v }));

    /// <inheritdoc/>
    public override IEnumerable<SpecProblem> Check() => Path is { Length: > 0 } ? [] : [new SpecProblem("path", "is empty")];
}

/// <summary>JSON of the record.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, RespectNullableAnnotations = true)]
[JsonSerializable(typeof(PmemSpec))]
internal sealed partial class PmemJson : JsonSerializerContext;
