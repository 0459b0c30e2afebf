using System.Globalization;

namespace Vmm.Devices.Pci;

/// <summary>
/// Where a function sits: its bus as the VM numbers them at its start, its slot (device number) and its number in the slot.
/// </summary>
/// <param name="Bus">0 is the host bridge's bus, the others are behind <see cref="PciBridge"/>s.</param>
/// <param name="Slot">0 to 31.</param>
/// <param name="Function">0 to 7. Software looks for others only where there is a function 0.</param>
public readonly record struct PciAddress(int Bus, int Slot, int Function = 0)
{
    /// <summary>As lspci writes it: <c>01:03.0</c>.</summary>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Bus:x2}:{Slot:x2}.{Function}");
}
