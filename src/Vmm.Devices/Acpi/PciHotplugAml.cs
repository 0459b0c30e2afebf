using Vmm.Devices.Pci;

namespace Vmm.Devices.Acpi;

/// <summary>
/// PCI hotplug by ACPI: the guest's half of <see cref="PciHotplugPorts"/>. Slots have no _STA: whether one is empty is what its
/// configuration space says, so there is one truth (Linux then reads the vendor id).
/// </summary>
internal static class PciHotplugAml
{
    private const ulong DeviceCheck = 1, EjectRequest = 3; // 5.6.6

    /// <summary>
    /// Inside the host bridge: the slots of bus 0, a device for each bridge with the slots behind it, and what the OS may control.
    /// </summary>
    /// <param name="root">The host bridge's device.</param>
    /// <param name="slots">The slots of each bus that can be ejected, bit n for slot n; bus 0 first.</param>
    /// <param name="face">What the machine's own functions look like.</param>
    internal static void HostBridge(AmlWriter root, IReadOnlyList<uint> slots, PciFace face)
    {
        Slots(root, 0, slots[0]);
        for (int i = 1; i < slots.Count; i++)
        {
            int bus = i, number = PciHostBridge.BridgeSlot(bus, slots.Count - 1, face);
            root.Device(SlotName(number), bridge =>
            {
                bridge.Name("_ADR", (ulong)number << 16);
                Slots(bridge, bus, slots[bus]);
            });
        }

        // All that the OS asks for is its own, but native hotplug, PCI Express's (bit 0) and SHPC's (bit 1): slots are plugged the ACPI
        // way. Bit 4 of the
        // first word says that something was withheld (6.2.11.3, PCI Firmware specification 3.3, 4.5.1).
        root.SerializedMethod("_OSC", 4, method => method
            .CreateDWordField(3, 0, "CDW1")
            .CreateDWordField(3, 8, "CDW3")
            .IfHas("CDW3", 3, then => then.And("CDW3", 0xFFFF_FFFC).Or("CDW1", 0x10))
            .ReturnArgument(3));
    }

    /// <summary>Inside a bridge: the registers of its bus, a device for each slot that can be ejected, and who notifies them.</summary>
    private static void Slots(AmlWriter bridge, int bus, uint slots)
    {
        bridge.PortRegion("HPRG", (ushort)PciHotplugPorts.Port(bus), (ushort)PciHotplugPorts.Length);
        bridge.DWordFields("HPRG", "HADD", "HREM", "HEJT", "HGEN");
        for (int slot = 0; slot < PciHostBridge.Slots; slot++)
        {
            uint bit = 1u << slot;
            if ((slots & bit) == 0)
            {
                continue;
            }

            int number = slot;
            bridge.Device(SlotName(slot), device => device
                .Name("_ADR", (ulong)number << 16)
                .Name("_SUN", (ulong)((bus * PciHostBridge.Slots) + number)) // one number a slot of the machine (6.1.11)
                .Method("_EJ0", 1, method => method.Store(bit, "HEJT")));
        }

        // Cleared before they are told: what comes in between keeps the interrupt up, and the method runs again.
        bridge.SerializedMethod("HSCN", 0, method =>
        {
            method.LoadLocal(0, "HADD").StoreLocal(0, "HADD").LoadLocal(1, "HREM").StoreLocal(1, "HREM");
            for (int slot = 0; slot < PciHostBridge.Slots; slot++)
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
    }

    /// <summary>
    /// A generic event device (5.6.9) whose interrupt says that the registers have news. It is a level: an edge before the OS unmasks the
    /// pin would be lost, and with it a device that came between the OS's scan of the bus and its driver of this device.
    /// </summary>
    /// <param name="scope">Where the device goes.</param>
    /// <param name="gsi">The interrupt, of all buses.</param>
    /// <param name="buses">Number of buses.</param>
    /// <param name="face">What the machine's own functions look like.</param>
    internal static void Events(AmlWriter scope, uint gsi, int buses, PciFace face) => scope.Device("GED1", device => device
        .NameText("_HID", "ACPI0013")
        .Name("_UID", 1)
        .NameResources("_CRS", new ResourceWriter().LevelInterrupt(gsi).ToArray())
        .Method("_EVT", 1, method =>
        {
            method.Call("\\_SB.PCI0.HSCN");
            for (int bus = 1; bus < buses; bus++)
            {
                method.Call($"\\_SB.PCI0.{SlotName(PciHostBridge.BridgeSlot(bus, buses - 1, face))}.HSCN");
            }
        }));

    private static string SlotName(int slot) => "S" + (char)('0' + (slot / 10)) + (char)('0' + (slot % 10)) + "_";
}
