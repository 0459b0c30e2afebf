using System.Text.Json.Serialization;

namespace Vmm.Spec;

/// <summary>A folder of the host that the guest mounts (virtio-fs). A program in a process of its own serves it, virtiofsd.</summary>
public sealed record ShareSpec
{
    /// <summary>Longest tag, in bytes of UTF-8: virtio 1.2 section 5.11.4.</summary>
    public const int LongestTag = 36;

    /// <summary>The folder.</summary>
    public string Path { get; init; } = "";

    /// <summary>What the guest mounts; null: the folder's own name.</summary>
    public string? Tag { get; init; }

    /// <summary>The host refuses what would change it.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>What the guest mounts.</summary>
    [JsonIgnore]
    public string EffectiveTag => Tag ?? System.IO.Path.GetFileName(System.IO.Path.TrimEndingDirectorySeparator(Path));
}
