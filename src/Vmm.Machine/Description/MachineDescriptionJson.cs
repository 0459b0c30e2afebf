using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using Vmm.Cpu;
using Vmm.Devices.Pci;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Description;

/// <summary>
/// The written form of a machine description, for saved VMs. What is read back is checked: it may have been written by anybody.
/// </summary>
public static class MachineDescriptionJson
{
    private const int MostItems = 4096; // of any list

    /// <summary>The JSON of a description.</summary>
    public static JsonElement Write(MachineDescription description)
    {
        DescriptionV1 written = new()
        {
            Version = MachineDescription.CurrentVersion,
            Spec = VmSpecJson.Write(description.Spec),
            Cpu = Parse(Encoding.UTF8.GetBytes(CpuDescriptionJson.Write(description.Cpu))),
            Vcpus = [.. description.Vcpus.Select(vcpu => new VcpuV1(vcpu.ApicId, vcpu.Vnode))],
            Ram = [.. description.Ram.Select(Write)],
            Hot = [.. description.Hot.Select(Write)],
            PciWindow64 = new WindowV1(description.PciWindow64.Start.Value, description.PciWindow64.Length),
            Bridges = description.Bridges,
            Devices = [.. description.Devices.Select(Write)],
            NextDisk = description.NextDisk,
            NextNet = description.NextNet,
        };

        // Not SerializeToElement: it looks for doubled names in what it has just written, with a hash whose seed comes from OpenSSL, a
        // library that a confined worker cannot load.
        return Parse(JsonSerializer.SerializeToUtf8Bytes(written, DescriptionJsonContext.Default.DescriptionV1));
    }

    /// <summary>The JSON of a description, as bytes.</summary>
    internal static byte[] Bytes(MachineDescription description) => Encoding.UTF8.GetBytes(Write(description).GetRawText());

    private static JsonElement Parse(byte[] json)
    {
        using JsonDocument document = JsonDocument.Parse(json);
        return document.RootElement.Clone();
    }

    /// <summary>Reads one back.</summary>
    /// <exception cref="InvalidDataException">It is none, of another version, or no machine could be like that.</exception>
    public static MachineDescription Read(JsonElement json)
    {
        try
        {
            DescriptionV1 read = json.Deserialize(DescriptionJsonContext.Default.DescriptionV1)
                ?? throw new InvalidDataException("the machine description is empty");
            if (read.Version != MachineDescription.CurrentVersion)
            {
                throw new InvalidDataException(
                    $"the machine description is of version {read.Version}, this program knows {MachineDescription.CurrentVersion}");
            }

            if (Math.Max(read.Vcpus.Length, Math.Max(read.Ram.Length, Math.Max(read.Hot.Length, read.Devices.Length))) > MostItems)
            {
                throw new InvalidDataException($"the machine description has a list of more than {MostItems} items");
            }

            MachineDescription description = new()
            {
                Spec = VmSpecJson.TryRead(read.Spec, out string problem)
                    ?? throw new InvalidDataException($"the spec in the machine description: {problem}"),
                Cpu = CpuDescriptionJson.Read(read.Cpu.GetRawText()),
                Vcpus = [.. read.Vcpus.Select(vcpu => new VcpuDescription(vcpu.ApicId, vcpu.Vnode))],
                Ram = [.. read.Ram.Select(Read)],
                Hot = [.. read.Hot.Select(Read)],
                PciWindow64 = new AddressWindow(new GuestAddress(read.PciWindow64.Start), new ByteSize(read.PciWindow64.Length)),
                Bridges = read.Bridges,
                Devices = [.. read.Devices.Select(Read)],
                NextDisk = read.NextDisk,
                NextNet = read.NextNet,
            };
            DescriptionCheck.Check(description);
            return description;
        }
        catch (Exception cause) when (cause is JsonException or InvalidOperationException or NotSupportedException)
        {
            throw new InvalidDataException($"no machine description: {cause.Message}", cause);
        }
    }

    private static ExtentV1 Write(RamExtent extent) => new(extent.Start.Value, extent.Length, extent.Vnode, extent.BackingOffset);

    private static RamExtent Read(ExtentV1 extent) =>
        new(new GuestAddress(extent.Start), new ByteSize(extent.Length), extent.Vnode, extent.Offset);

    private static DeviceV1 Write(DeviceDescription device) =>
        new(device.Id, device.Kind, device.Pci is { } at ? new PciV1(at.Bus, at.Slot, at.Function) : null, device.MmioSlot, device.Vnode);

    private static DeviceDescription Read(DeviceV1 device) => new()
    {
        Id = device.Id,
        Kind = device.Kind,
        Pci = device.Pci is { } at ? new PciAddress(at.Bus, at.Slot, at.Function) : null,
        MmioSlot = device.MmioSlot,
        Vnode = device.Vnode,
    };
}

/// <summary>Version 1. The shape never changes; what grows gets the next version.</summary>
internal sealed record DescriptionV1
{
    public required int Version { get; init; }

    [JsonConverter(typeof(RawElement))]
    public required JsonElement Spec { get; init; }

    [JsonConverter(typeof(RawElement))]
    public required JsonElement Cpu { get; init; }

    public required VcpuV1[] Vcpus { get; init; }

    public required ExtentV1[] Ram { get; init; }

    public required ExtentV1[] Hot { get; init; }

    public required WindowV1 PciWindow64 { get; init; }

    public required int Bridges { get; init; }

    public required DeviceV1[] Devices { get; init; }

    public required int NextDisk { get; init; }

    public required int NextNet { get; init; }
}

internal sealed record VcpuV1(uint ApicId, int Vnode);

internal sealed record ExtentV1(ulong Start, ulong Length, int Vnode, ulong Offset);

internal sealed record WindowV1(ulong Start, ulong Length);

internal sealed record PciV1(int Bus, int Slot, int Function);

internal sealed record DeviceV1(string Id, string Kind, PciV1? Pci, int? MmioSlot, int? Vnode);

/// <summary>How it is written. What is unknown, doubled, missing or null where nothing may be is refused.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    AllowDuplicateProperties = false,
    MaxDepth = 32)]
[JsonSerializable(typeof(DescriptionV1))]
[JsonSerializable(typeof(JsonElement))]
internal sealed partial class DescriptionJsonContext : JsonSerializerContext;

/// <summary>
/// A part that has a reader of its own: taken as it is, without a search for doubled names, for which the library would load OpenSSL.
/// </summary>
internal sealed class RawElement : JsonConverter<JsonElement>
{
    /// <inheritdoc/>
    public override JsonElement Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        using JsonDocument document = JsonDocument.ParseValue(ref reader);
        return document.RootElement.Clone();
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, JsonElement value, JsonSerializerOptions options) => value.WriteTo(writer);
}
