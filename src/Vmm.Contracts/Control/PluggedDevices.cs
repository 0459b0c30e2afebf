using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Vmm.Contracts.Control;

/// <summary>
/// A device to plug into a running VM; exactly one of the two is there. Its descriptors are passed as those of device number 0.
/// </summary>
/// <param name="Disk">A disk as in the spec's JSON.</param>
/// <param name="Net">A network device as in the spec's JSON.</param>
public sealed record PlugBody(JsonElement? Disk, JsonElement? Net);

/// <summary>A device to take out of a running VM.</summary>
/// <param name="Device">Its name.</param>
/// <param name="TimeoutMilliseconds">How long the guest has to let go of it; the answer comes then, or before.</param>
/// <param name="Force">After that it is taken from the guest.</param>
public sealed record UnplugBody(string Device, int TimeoutMilliseconds, bool Force);

/// <summary>How a removal came out.</summary>
public enum DeviceRemoval
{
    /// <summary>The guest let go of it, and it is gone.</summary>
    Removed,

    /// <summary>Taken without the guest's consent; gone.</summary>
    Forced,

    /// <summary>The guest did not let go of it in time. The device works on; when the guest lets go later, it is gone then.</summary>
    Refused,
}

/// <summary>A removal that ended.</summary>
/// <param name="Device">Name of the device.</param>
/// <param name="Outcome">How.</param>
public sealed record RemovalBody(string Device, DeviceRemoval Outcome);

/// <summary>A disk or network device that a VM has.</summary>
/// <param name="Name"><c>disk0</c>, <c>net1</c>, …: it stays while the device is there, and no other device of the same run gets
/// it.</param>
/// <param name="Kind"><c>disk</c> or <c>net</c>.</param>
/// <param name="Source">
/// The disk's file, or the tap; <c>user:passt</c> for user-mode networking, <c>bridge:NAME</c> for a tap on a bridge.
/// </param>
/// <param name="Slot">PCI slot of its bus, the guest's <c>BUS:SLOT.0</c>; null: a virtio-mmio device, which stays for good, or a VM that
/// does not run.</param>
/// <param name="ReadOnly">The guest cannot write to it.</param>
/// <param name="Removing">The guest was asked to let go of it.</param>
/// <param name="Stored">The stored spec has it: it is there at the next start, too.</param>
/// <param name="Vnode">The vnode it is near; null is none.</param>
/// <param name="Bus">PCI bus of its slot: 0 is the host bridge's, the others are behind PCI bridges.</param>
/// <param name="Waits">What a disk waits for, with its requests kept and the VM paused; null: for nothing.</param>
public sealed record DeviceInfo(
    string Name,
    string Kind,
    string Source,
    int? Slot,
    bool ReadOnly,
    bool Removing,
    bool Stored,
    int? Vnode = null,
    int Bus = 0,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] DiskFault? Waits = null)
{
    /// <summary>Where the guest finds it, as lspci writes it; null as <see cref="Slot"/>.</summary>
    [JsonIgnore]
    public string? Address => Slot is { } slot ? string.Create(CultureInfo.InvariantCulture, $"{Bus:x2}:{slot:x2}.0") : null;
}

/// <summary>Disks and network devices of a VM, in the order they came.</summary>
/// <param name="Devices">The devices.</param>
public sealed record DeviceList(IReadOnlyList<DeviceInfo> Devices);

/// <summary>A disk whose size is to be looked at again.</summary>
/// <param name="Device">Its name.</param>
/// <param name="GrowTo">
/// The size in bytes that an image is given; null: only look. Needs <see cref="ControlVersion.ImageGrowth"/>.
/// </param>
public sealed record RefreshDiskBody(
    string Device, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] ulong? GrowTo = null);

/// <summary>How large a disk is.</summary>
/// <param name="Device">Its name, <c>disk0</c>.</param>
/// <param name="SizeBytes">The size that its guest sees, bytes.</param>
public sealed record DiskSize(string Device, ulong SizeBytes);
