using System.Text.Json;
using System.Text.Json.Serialization;
using Vmm.Daemon.Storage;
using Vmm.Spec;

namespace Vmm.Daemon.Saved;

/// <summary>
/// What vmmd knows of a VM that it saves: the spec with the devices that were plugged at that moment. It opens what this names, never what
/// a worker wrote.
/// </summary>
/// <param name="Version">Of this form: 1.</param>
/// <param name="Id">The VM's id.</param>
/// <param name="Name">Its name.</param>
/// <param name="SavedAt">When.</param>
/// <param name="Spec">The spec as JSON (<see cref="VmSpecJson"/>).</param>
internal sealed record SavedVmNote(int Version, string Id, string Name, DateTimeOffset SavedAt, JsonElement Spec)
{
    private const int CurrentVersion = 1;

    /// <summary>The note of a VM that is saved now.</summary>
    internal static SavedVmNote Of(string id, VmSpec spec) =>
        new(CurrentVersion, id, spec.Name, DateTimeOffset.UtcNow, VmSpecJson.Write(spec));

    internal byte[] ToBytes() => JsonSerializer.SerializeToUtf8Bytes(this, SavedVmNoteJson.Default.SavedVmNote);

    /// <summary>Reads a note and its spec.</summary>
    /// <exception cref="StorageException">It is none, or its spec is not sound.</exception>
    internal static (SavedVmNote Note, VmSpec Spec) Read(string path, ReadOnlySpan<byte> bytes)
    {
        try
        {
            SavedVmNote note = JsonSerializer.Deserialize(bytes, SavedVmNoteJson.Default.SavedVmNote)
                ?? throw new StorageException(path, "is empty");
            if (note.Version != CurrentVersion)
            {
                throw new StorageException(path, $"is of version {note.Version}, this vmmd reads {CurrentVersion}");
            }

            return VmSpecJson.TryRead(note.Spec, out string problem) is { } spec
                ? (note, spec)
                : throw new StorageException(path, $"has a spec that is not sound: {problem}");
        }
        catch (JsonException cause)
        {
            throw new StorageException(path, $"is no note of vmmd: {cause.Message}", cause);
        }
    }
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    AllowDuplicateProperties = false,
    MaxDepth = 32)]
[JsonSerializable(typeof(SavedVmNote))]
internal sealed partial class SavedVmNoteJson : JsonSerializerContext;
