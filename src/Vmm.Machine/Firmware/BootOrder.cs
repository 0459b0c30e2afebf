using System.Globalization;
using System.Text;
using Vmm.Devices.Pci;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Layout;

namespace Vmm.Machine.Firmware;

/// <summary>
/// What firmware starts from, first to last: disks in the order of the spec, then network devices, as Open Firmware writes where they are
/// (edk2's QemuBootOrderLib).
/// </summary>
internal static class BootOrder
{
    /// <summary>The paths, a line each, with a zero at the end.</summary>
    internal static byte[] Of(IReadOnlyList<AttachedDevice> devices, PciTree tree)
    {
        StringBuilder text = new();
        foreach (AttachedDevice disk in devices.Where(device => device is { DiskSpec: not null, Address: not null }))
        {
            Add(text, tree, disk.Address!.Value, "scsi", "disk@0,0");
        }

        foreach (AttachedDevice net in devices.Where(device => device is { NetSpec: not null, Address: not null }))
        {
            Add(text, tree, net.Address!.Value, "ethernet", "ethernet-phy@0");
        }

        return [.. Encoding.ASCII.GetBytes(text.ToString()), 0];
    }

    private static void Add(StringBuilder text, PciTree tree, PciAddress at, string kind, string unit)
    {
        text.Append(text.Length == 0 ? "" : "\n").Append("/pci@i0cf8");
        if (at.Bus > 0)
        {
            Add(text, "pci-bridge", tree.Upstream(at.Bus));
        }

        Add(text, kind, at);
        text.Append('/').Append(unit);
    }

    private static void Add(StringBuilder text, string kind, PciAddress at)
    {
        text.Append(CultureInfo.InvariantCulture, $"/{kind}@{at.Slot:x}");
        if (at.Function != 0)
        {
            text.Append(CultureInfo.InvariantCulture, $",{at.Function:x}");
        }
    }
}
