using System.Text.Json.Serialization;
using Vmm.State;

namespace Vmm.Machine.Saved;

/// <summary>The records of a machine as a whole, in a saved VM: one line a kind and version.</summary>
public static class MachineStates
{
    /// <summary>The memory files.</summary>
    public static readonly StateShape<SavedMemoryV1> Memory =
        new(SavedMemoryV1.Kind, SavedMemoryV1.Version, MachineStateJson.Default.SavedMemoryV1);

    /// <summary>The files of memory that comes and goes.</summary>
    public static readonly StateShape<SavedHotMemoryV1> HotMemory =
        new(SavedHotMemoryV1.Kind, SavedHotMemoryV1.Version, MachineStateJson.Default.SavedHotMemoryV1);

    /// <summary>The units there were.</summary>
    public static readonly StateShape<SavedUnitsV1> Units =
        new(SavedUnitsV1.Kind, SavedUnitsV1.Version, MachineStateJson.Default.SavedUnitsV1);

    /// <summary>The guest's time.</summary>
    public static readonly StateShape<GuestTimeStateV1> GuestTime =
        new(GuestTimeStateV1.Kind, GuestTimeStateV1.Version, MachineStateJson.Default.GuestTimeStateV1);

    /// <summary>What the guest was asked to have.</summary>
    public static readonly StateShape<VnodeSizesStateV1> VnodeSizes =
        new(VnodeSizesStateV1.Kind, VnodeSizesStateV1.Version, MachineStateJson.Default.VnodeSizesStateV1);

    /// <summary>Input between user and guest.</summary>
    public static readonly StateShape<ConsoleInputStateV1> ConsoleInput =
        new(ConsoleInputStateV1.Kind, ConsoleInputStateV1.Version, MachineStateJson.Default.ConsoleInputStateV1);

    /// <summary>All of them, for the schema.</summary>
    public static IReadOnlyList<StateShape> All { get; } = [Memory, HotMemory, Units, GuestTime, VnodeSizes, ConsoleInput];
}

/// <summary>How they are written. What is unknown, doubled, missing or null where nothing may be is refused.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true, AllowDuplicateProperties = false,
    MaxDepth = StateDocument.MaxDepth)]
[JsonSerializable(typeof(SavedMemoryV1))]
[JsonSerializable(typeof(SavedHotMemoryV1))]
[JsonSerializable(typeof(SavedUnitsV1))]
[JsonSerializable(typeof(GuestTimeStateV1))]
[JsonSerializable(typeof(VnodeSizesStateV1))]
[JsonSerializable(typeof(ConsoleInputStateV1))]
internal sealed partial class MachineStateJson : JsonSerializerContext;
