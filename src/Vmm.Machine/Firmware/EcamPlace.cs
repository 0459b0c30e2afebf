using Vmm.Devices.Bus;
using Vmm.Machine.Layout;
using Vmm.Memory;

namespace Vmm.Machine.Firmware;

/// <summary>Where the guest reaches configuration space in memory. Calls come one at a time.</summary>
/// <param name="mmio">The bus it is on.</param>
/// <param name="ecam">The configuration space.</param>
internal sealed class EcamPlace(AddressBus mmio, IBusDevice ecam)
{
    private ulong? _place;

    /// <summary>Moves it; over something else it does not answer.</summary>
    /// <param name="at">Its first address; null: nowhere.</param>
    internal void Move(ulong? at)
    {
        if (at == _place)
        {
            return;
        }

        if (_place is { } before)
        {
            mmio.Unmap(new GuestAddress(before));
        }

        _place = at is { } place && mmio.TryMap(new GuestAddress(place), MemoryMap.Ecam.Length, ecam, "ECAM") ? place : null;
    }
}
