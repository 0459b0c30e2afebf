namespace Vmm.Devices.Pci;

/// <summary>A function of the machine's own, which nobody plugs or unplugs.</summary>
internal abstract class ChipsetFunction(string name, ushort vendor, ushort device, uint classCode, bool decodesPorts = false)
    : PciFunction(name, vendor, device, classCode, 0, decodesPorts: decodesPorts);

/// <summary>
/// The LPC bridge of Intel's ICH9 (datasheet 13.1) at 00:1f.0, as far as firmware for that chipset looks: where the power management ports
/// are, and scratch registers for interrupt routes that nothing here follows. It comes configured: the ports are on, and stay where they
/// are.
/// </summary>
public sealed class LpcBridge
{
    /// <summary>Its slot on bus 0.</summary>
    public const int Slot = 31;

    /// <summary>First of the power management ports.</summary>
    public const ushort PowerManagementPorts = 0x600;

    internal static PciFunction Create() => new Function();

    private sealed class Function : ChipsetFunction
    {
        private const uint IsPort = 1, AcpiEnabled = 0x80, NotRouted = 0x80;

        public Function() : base("LPC bridge", 0x8086, 0x2918, 0x060100, decodesPorts: true)
        {
            Config.Add(new PciField(0x40, 4, PowerManagementPorts | IsPort)); // PMBASE
            Config.Add(new PciField(0x44, 1, AcpiEnabled));                   // ACPI_CNTL
            foreach (int at in (ReadOnlySpan<int>)[0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6A, 0x6B])
            {
                Config.Add(new PciField(at, 1, NotRouted) { Writable = 0x8F }); // PIRQ[A-H]_ROUT
            }

            Config.Add(new PciField(0xF0, 4, 0) { Writable = 0xFFFF_C001 }); // RCBA, which nothing is behind
        }
    }
}
