using Vmm.Devices.Pci;

namespace Vmm.Devices.Acpi;

/// <summary>The differentiated system description table: what cannot be discovered by probing.</summary>
internal static class Dsdt
{
    internal static byte[] Build(AcpiConfig config)
    {
        AmlWriter aml = new();
        aml.NamePackage("\\_S5", Legacy.AcpiPowerPorts.SleepTypeS5, 0, 0, 0);
        aml.Scope("\\_SB", sb =>
        {
            for (int i = 0; i < config.Processors.Count; i++)
            {
                Processor(sb, i, config.Processors[i], config.Distances is not null);
            }

            sb.Device("PCI0", pci => HostBridge(pci, config));
            // The ECAM range must be reserved by a motherboard resource (PCI Firmware specification 3.2, 4.1.2).
            sb.Device("MRES", device => device
                .NameEisaId("_HID", "PNP0C02")
                .Name("_UID", 0)
                .NameResources(
                    "_CRS", new ResourceWriter().FixedMemory((uint)config.EcamBase.Value, (config.LastBus + 1u) << 20).ToArray()));
            LegacyDevices(sb, config);
            for (int i = 0; i < config.VirtioMmio.Count; i++)
            {
                VirtioMmio(sb, i, config.VirtioMmio[i]);
            }

            Buttons(sb, config);
            if (config.HotplugGsi is { } hotplug)
            {
                PciHotplugAml.Events(sb, hotplug, config.HotplugSlots.Count, config.Face);
            }
        });

        return new AcpiTable("DSDT", 2).Raw(aml.ToArray()).ToArray();
    }

    /// <summary>What is at fixed ports or in memory.</summary>
    private static void LegacyDevices(AmlWriter sb, AcpiConfig config)
    {
        if (config.Serial)
        {
            sb.Device("COM1", device => device
                .NameEisaId("_HID", "PNP0501")
                .Name("_UID", 0)
                .NameResources("_CRS", new ResourceWriter().Io(0x3F8, 8).EdgeInterrupt(4).ToArray()));
        }

        if (config.PvPanic)
        {
            sb.Device("PEVT", device => device
                .NameText("_HID", "QEMU0001")
                .NameResources("_CRS", new ResourceWriter().Io((ushort)Legacy.PvPanic.Port, 1).ToArray())
                .Name("_STA", 0xF));
        }

        if (config.GenerationId is { } generation)
        {
            // Microsoft's Virtual Machine Generation ID: guests look for the compatible id; ADDR is the address in two halves.
            sb.Device("VGEN", device => device
                .NameText("_HID", "VMMC0001")
                .NameText("_CID", "VM_Gen_Counter")
                .NameText("_DDN", "VM_Gen_Counter")
                .NamePackage("ADDR", generation.Value & uint.MaxValue, generation.Value >> 32));
        }

        sb.Device("RTC0", device => device
            .NameEisaId("_HID", "PNP0B00")
            .NameResources("_CRS", new ResourceWriter().Io(0x70, 2).ToArray()));
    }

    private static void Buttons(AmlWriter sb, AcpiConfig config)
    {
        if (config.KeyboardGsi is { } keyboard)
        {
            sb.Device("KBD0", device => device
                .NameEisaId("_HID", "PNP0303")
                .NameResources("_CRS", new ResourceWriter()
                    .Io((ushort)Legacy.I8042.DataPort, 1)
                    .Io((ushort)Legacy.I8042.CommandPort, 1)
                    .EdgeInterrupt(keyboard)
                    .ToArray()));
        }

        if (config.PowerButtonGsi is { } gsi)
        {
            PowerButton(sb, gsi);
        }
    }

    private static void Processor(AmlWriter scope, int index, AcpiProcessor processor, bool numa) =>
        scope.Device(ProcessorName(index), device =>
        {
            device.NameText("_HID", "ACPI0007").Name("_UID", (ulong)index);
            if (numa)
            {
                device.Name("_PXM", (ulong)processor.Vnode);
            }
        });

    /// <summary>
    /// LNRO0005 is the id that Linux' and others' drivers of virtio-mmio devices look for: stock kernels read none from the command line.
    /// </summary>
    private static void VirtioMmio(AmlWriter scope, int index, AcpiVirtioMmio window) =>
        scope.Device($"VM{(char)('0' + (index / 10))}{(char)('0' + (index % 10))}", device => device
            .NameText("_HID", "LNRO0005")
            .Name("_UID", (ulong)index)
            .Name("_CCA", 1)
            .NameResources(
                "_CRS",
                new ResourceWriter().FixedMemory((uint)window.Base.Value, (uint)window.Length).EdgeInterrupt(window.Gsi).ToArray()));

    /// <summary>C000, C001, …: four characters, as names in AML are.</summary>
    private static string ProcessorName(int index)
    {
        const string Digits = "0123456789ABCDEF";
        ReadOnlySpan<char> name = ['C', Digits[(index >> 8) & 15], Digits[(index >> 4) & 15], Digits[index & 15]];
        return new string(name);
    }

    /// <summary>
    /// A control-method button (4.8.3.1.2.1) behind a generic event device (5.6.9): its edge is the press, so there is no register to ask.
    /// </summary>
    private static void PowerButton(AmlWriter scope, uint gsi)
    {
        scope.Device("PWRB", device => device.NameEisaId("_HID", "PNP0C0C").Name("_UID", 0));
        scope.Device("GED0", device => device
            .NameText("_HID", "ACPI0013")
            .Name("_UID", 0)
            .NameResources("_CRS", new ResourceWriter().EdgeInterrupt(gsi).ToArray())
            .Method("_EVT", 1, method => method.Notify("PWRB", 0x80)));
    }

    /// <summary>
    /// Where the pins of each slot of bus 0 lead (6.2.13): a level, active low as PCI has it, on an I/O APIC pin. Bridges turn the pins
    /// behind them, which every OS knows.
    /// </summary>
    private static List<ulong[]> InterruptRoutes((uint First, int Count) gsis)
    {
        List<ulong[]> routes = [];
        for (int slot = 1; slot < PciHostBridge.Slots; slot++)
        {
            for (int pin = 0; pin < PciHostBridge.IntxLines; pin++)
            {
                uint gsi = gsis.First + (uint)(PciHostBridge.IntxLine(slot, pin) % gsis.Count);
                routes.Add([((ulong)slot << 16) | 0xFFFF, (ulong)pin, 0, gsi]);
            }
        }

        return routes;
    }

    private static void HostBridge(AmlWriter bridge, AcpiConfig config)
    {
        ResourceWriter resources = new ResourceWriter()
            .BusRange(0, config.LastBus)
            .Io(0xCF8, 8)
            .MemoryWindow32((uint)config.Window32Start.Value, (uint)config.Window32Length);
        if (config.Window64Length != 0)
        {
            resources.MemoryWindow64(config.Window64Start.Value, config.Window64Length);
        }

        bridge
            .NameEisaId("_HID", "PNP0A08")
            .NameEisaId("_CID", "PNP0A03")
            .Name("_SEG", 0)
            .Name("_BBN", 0)
            .Name("_UID", 0)
            .Name("_PXM", 0)
            .NameResources("_CRS", resources.ToArray());
        if (config.IntxGsis.Count > 0)
        {
            bridge.NamePackages("_PRT", InterruptRoutes(config.IntxGsis));
        }

        if (config.HotplugGsi is null)
        {
            // The firmware has no use for any PCI Express feature: the OS gets control of all it asks for (6.2.11).
            bridge.Method("_OSC", 4, method => method.ReturnArgument(3));
        }
        else
        {
            PciHotplugAml.HostBridge(bridge, config.HotplugSlots, config.Face);
        }
    }
}
