using Vmm.Devices.Pci;

namespace Vmm.Devices.Acpi;

/// <summary>
/// PCI hotplug by ACPI: the guest's half of <see cref="PciHotplugPorts"/>. Slots have no _STA: whether one is empty is what its configuration space says,
/// so there is one truth (Linux then reads the vendor id).
/// </summary>
internal static class PciHotplugAml
{
    private const ulong DeviceCheck = 1, EjectRequest = 3; // 5.6.6

    /// <summary>Inside the host bridge: the registers, a device for each slot that can be ejected, who notifies them, and what the OS may control.</summary>
    internal static void Slots(AmlWriter bridge, uint slots)
    {
        bridge.PortRegion("HPRG", (ushort)PciHotplugPorts.Port, (ushort)PciHotplugPorts.Length);
        bridge.DWordFields("HPRG", "HADD", "HREM", "HEJT", "HGEN");
        for (int slot = 1; slot < PciHostBridge.Slots; slot++)
        {
            uint bit = 1u << slot;
            if ((slots & bit) == 0)
            {
                continue;
            }

            int number = slot;
            bridge.Device(SlotName(slot), device => device
                .Name("_ADR", (ulong)number << 16)
                .Name("_SUN", (ulong)number)
                .Method("_EJ0", 1, method => method.Store(bit, "HEJT")));
        }

        // Cleared before they are told: what comes in between keeps the interrupt up, and the method runs again.
        bridge.SerializedMethod("HSCN", 0, method =>
        {
            method.LoadLocal(0, "HADD").StoreLocal(0, "HADD").LoadLocal(1, "HREM").StoreLocal(1, "HREM");
            for (int slot = 1; slot < PciHostBridge.Slots; slot++)
            {
                uint bit = 1u << slot;
                if ((slots & bit) != 0)
                {
                    string name = SlotName(slot);
                    method.IfLocalHas(0, bit, then => then.Notify(name, DeviceCheck));
                    method.IfLocalHas(1, bit, then => then.Notify(name, EjectRequest));
                }
            }
        });

        // All that the OS asks for is its own, but native hotplug, PCI Express's (bit 0) and SHPC's (bit 1): slots are plugged the ACPI way. Bit 4 of the
        // first word says that something was withheld (6.2.11.3, PCI Firmware specification 3.3, 4.5.1).
        bridge.SerializedMethod("_OSC", 4, method => method
            .CreateDWordField(3, 0, "CDW1")
            .CreateDWordField(3, 8, "CDW3")
            .IfHas("CDW3", 3, then => then.And("CDW3", 0xFFFF_FFFC).Or("CDW1", 0x10))
            .ReturnArgument(3));
    }

    /// <summary>
    /// A generic event device (5.6.9) whose interrupt says that the registers have news. It is a level: an edge before the OS unmasks the pin would be lost,
    /// and with it a device that came between the OS's scan of the bus and its driver of this device.
    /// </summary>
    internal static void Events(AmlWriter scope, uint gsi) => scope.Device("GED1", device => device
        .NameText("_HID", "ACPI0013")
        .Name("_UID", 1)
        .NameResources("_CRS", new ResourceWriter().LevelInterrupt(gsi).ToArray())
        .Method("_EVT", 1, method => method.Call("\\_SB.PCI0.HSCN")));

    private static string SlotName(int slot) => "S" + (char)('0' + (slot / 10)) + (char)('0' + (slot % 10)) + "_";
}
