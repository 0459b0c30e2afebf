using Vmm.Devices.Bus;
using Vmm.Memory;

namespace Vmm.Devices.Pci;

/// <summary>Where memory BARs become reachable: the MMIO bus of the machine.</summary>
public interface IMmioMap
{
    /// <summary>
    /// Makes <paramref name="device"/> answer at a range; false when the range is taken (a guest moved a BAR onto something).
    /// </summary>
    bool TryMap(GuestAddress start, ulong length, IBusDevice device, string name);

    /// <summary>Undoes <see cref="TryMap"/>.</summary>
    void Unmap(GuestAddress start);
}
