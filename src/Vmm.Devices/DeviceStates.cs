using System.Text.Json.Serialization;
using Vmm.Devices.Firmware;
using Vmm.Devices.Legacy;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Console;
using Vmm.Devices.Virtio.Mem;
using Vmm.Devices.Virtio.Net;
using Vmm.Devices.Virtio.Serial;
using Vmm.State;

namespace Vmm.Devices;

/// <summary>The records of devices in a saved VM: one line a kind and version.</summary>
public static class DeviceStates
{
    /// <summary>The serial port.</summary>
    public static readonly StateShape<UartStateV1> Uart = new(UartStateV1.Kind, UartStateV1.Version, DeviceStateJson.Default.UartStateV1);

    /// <summary>The clock and CMOS RAM.</summary>
    public static readonly StateShape<RtcStateV1> Rtc = new(RtcStateV1.Kind, RtcStateV1.Version, DeviceStateJson.Default.RtcStateV1);

    /// <summary>The keyboard controller.</summary>
    public static readonly StateShape<KeyboardControllerStateV1> KeyboardController =
        new(KeyboardControllerStateV1.Kind, KeyboardControllerStateV1.Version, DeviceStateJson.Default.KeyboardControllerStateV1);

    /// <summary>Port 0xCF9.</summary>
    public static readonly StateShape<ResetControlStateV1> ResetControl =
        new(ResetControlStateV1.Kind, ResetControlStateV1.Version, DeviceStateJson.Default.ResetControlStateV1);

    /// <summary>The hotplug registers of a bus.</summary>
    public static readonly StateShape<PciHotplugStateV1> PciHotplug =
        new(PciHotplugStateV1.Kind, PciHotplugStateV1.Version, DeviceStateJson.Default.PciHotplugStateV1);

    /// <summary>The root ports of a machine that plugs by them.</summary>
    public static readonly StateShape<PciPortsStateV1> PciPorts =
        new(PciPortsStateV1.Kind, PciPortsStateV1.Version, DeviceStateJson.Default.PciPortsStateV1);

    /// <summary>Configuration of all PCI functions.</summary>
    public static readonly StateShape<PciStateV1> Pci = new(PciStateV1.Kind, PciStateV1.Version, DeviceStateJson.Default.PciStateV1);

    /// <summary>Message vectors of a function.</summary>
    public static readonly StateShape<MsixStateV1> Msix = new(MsixStateV1.Kind, MsixStateV1.Version, DeviceStateJson.Default.MsixStateV1);

    /// <summary>Registers and queues of a virtio device.</summary>
    public static readonly StateShape<VirtioTransportStateV1> VirtioTransport =
        new(VirtioTransportStateV1.Kind, VirtioTransportStateV1.Version, DeviceStateJson.Default.VirtioTransportStateV1);

    /// <summary>A disk's front end.</summary>
    public static readonly StateShape<BlkStateV1> Blk = new(BlkStateV1.Kind, BlkStateV1.Version, DeviceStateJson.Default.BlkStateV1);

    /// <summary>A network device.</summary>
    public static readonly StateShape<NetStateV1> Net = new(NetStateV1.Kind, NetStateV1.Version, DeviceStateJson.Default.NetStateV1);

    /// <summary>A balloon.</summary>
    public static readonly StateShape<BalloonStateV1> Balloon =
        new(BalloonStateV1.Kind, BalloonStateV1.Version, DeviceStateJson.Default.BalloonStateV1);

    /// <summary>Memory that comes and goes.</summary>
    public static readonly StateShape<MemStateV1> Mem = new(MemStateV1.Kind, MemStateV1.Version, DeviceStateJson.Default.MemStateV1);

    /// <summary>A console that keeps input.</summary>
    public static readonly StateShape<ConsoleStateV1> Console =
        new(ConsoleStateV1.Kind, ConsoleStateV1.Version, DeviceStateJson.Default.ConsoleStateV1);

    /// <summary>A named port.</summary>
    public static readonly StateShape<SerialStateV1> Serial =
        new(SerialStateV1.Kind, SerialStateV1.Version, DeviceStateJson.Default.SerialStateV1);

    /// <summary>The firmware's configuration device.</summary>
    public static readonly StateShape<FwCfgStateV1> FwCfg =
        new(FwCfgStateV1.Kind, FwCfgStateV1.Version, DeviceStateJson.Default.FwCfgStateV1);

    /// <summary>The flash of a firmware's variables.</summary>
    public static readonly StateShape<CfiFlashStateV1> Flash =
        new(CfiFlashStateV1.Kind, CfiFlashStateV1.Version, DeviceStateJson.Default.CfiFlashStateV1);

    /// <summary>All of them, for the schema.</summary>
    public static IReadOnlyList<StateShape> All { get; } =
        [
            Uart, Rtc, KeyboardController, ResetControl, PciHotplug, PciPorts, Pci, Msix, VirtioTransport, Blk, Net, Balloon, Mem, Console,
            FwCfg, Flash, Serial,
        ];
}

/// <summary>How they are written. What is unknown, doubled, missing or null where nothing may be is refused.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true, AllowDuplicateProperties = false,
    MaxDepth = StateDocument.MaxDepth)]
[JsonSerializable(typeof(UartStateV1))]
[JsonSerializable(typeof(RtcStateV1))]
[JsonSerializable(typeof(KeyboardControllerStateV1))]
[JsonSerializable(typeof(ResetControlStateV1))]
[JsonSerializable(typeof(PciHotplugStateV1))]
[JsonSerializable(typeof(PciPortsStateV1))]
[JsonSerializable(typeof(PciStateV1))]
[JsonSerializable(typeof(MsixStateV1))]
[JsonSerializable(typeof(VirtioTransportStateV1))]
[JsonSerializable(typeof(BlkStateV1))]
[JsonSerializable(typeof(NetStateV1))]
[JsonSerializable(typeof(BalloonStateV1))]
[JsonSerializable(typeof(MemStateV1))]
[JsonSerializable(typeof(ConsoleStateV1))]
[JsonSerializable(typeof(SerialStateV1))]
[JsonSerializable(typeof(FwCfgStateV1))]
[JsonSerializable(typeof(CfiFlashStateV1))]
internal sealed partial class DeviceStateJson : JsonSerializerContext;
