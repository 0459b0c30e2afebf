using System.Text.Json.Serialization;

namespace Vmm.Storage.Replicas;

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    WriteIndented = true)]
[JsonSerializable(typeof(SealedPoint))]
[JsonSerializable(typeof(ReplicaRecord))]
[JsonSerializable(typeof(MergeRecord))]
internal sealed partial class ReplicaJson : JsonSerializerContext;
