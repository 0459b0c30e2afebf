using System.Text.Json.Serialization;
using Vmm.State;

namespace Vmm.Kvm;

/// <summary>The records of what lies in the kernel, in a saved VM: one line a kind and version.</summary>
public static class KvmStates
{
    /// <summary>A vCPU.</summary>
    public static readonly StateShape<KvmVcpuStateV1> Vcpu =
        new(KvmVcpuStateV1.Kind, KvmVcpuStateV1.Version, KvmStateJson.Default.KvmVcpuStateV1);

    /// <summary>The interrupt controllers.</summary>
    public static readonly StateShape<KvmIrqchipStateV1> Irqchip =
        new(KvmIrqchipStateV1.Kind, KvmIrqchipStateV1.Version, KvmStateJson.Default.KvmIrqchipStateV1);

    /// <summary>The timer.</summary>
    public static readonly StateShape<KvmPitStateV1> Pit =
        new(KvmPitStateV1.Kind, KvmPitStateV1.Version, KvmStateJson.Default.KvmPitStateV1);

    /// <summary>kvmclock.</summary>
    public static readonly StateShape<KvmClockStateV1> Clock =
        new(KvmClockStateV1.Kind, KvmClockStateV1.Version, KvmStateJson.Default.KvmClockStateV1);

    /// <summary>How far the TSCs are apart.</summary>
    public static readonly StateShape<KvmTscStateV1> Tsc =
        new(KvmTscStateV1.Kind, KvmTscStateV1.Version, KvmStateJson.Default.KvmTscStateV1);

    /// <summary>All of them, for the schema.</summary>
    public static IReadOnlyList<StateShape> All { get; } = [Vcpu, Irqchip, Pit, Clock, Tsc];
}

/// <summary>How they are written. What is unknown, doubled, missing or null where nothing may be is refused.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true, AllowDuplicateProperties = false,
    MaxDepth = StateDocument.MaxDepth)]
[JsonSerializable(typeof(KvmVcpuStateV1))]
[JsonSerializable(typeof(KvmIrqchipStateV1))]
[JsonSerializable(typeof(KvmPitStateV1))]
[JsonSerializable(typeof(KvmClockStateV1))]
[JsonSerializable(typeof(KvmTscStateV1))]
internal sealed partial class KvmStateJson : JsonSerializerContext;
