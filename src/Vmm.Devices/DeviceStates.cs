using System.Text.Json.Serialization;
using Vmm.Devices.Legacy;
using Vmm.State;

namespace Vmm.Devices;

/// <summary>The records of devices in a saved VM: one line a kind and version.</summary>
public static class DeviceStates
{
    /// <summary>The serial port.</summary>
    public static readonly StateShape<UartStateV1> Uart = new(UartStateV1.Kind, UartStateV1.Version, DeviceStateJson.Default.UartStateV1);

    /// <summary>All of them, for the schema.</summary>
    public static IReadOnlyList<StateShape> All { get; } = [Uart];
}

/// <summary>How they are written. What is unknown, doubled, missing or null where nothing may be is refused.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true, AllowDuplicateProperties = false,
    MaxDepth = StateDocument.MaxDepth)]
[JsonSerializable(typeof(UartStateV1))]
internal sealed partial class DeviceStateJson : JsonSerializerContext;
