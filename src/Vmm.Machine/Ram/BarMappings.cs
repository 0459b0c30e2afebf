using Vmm.Devices.Pci;
using Vmm.Interop;
using Vmm.Machine.Layout;
using Vmm.Memory;

namespace Vmm.Machine.Ram;

/// <summary>
/// Memory behind BARs as memory slots. A guest may put a BAR inside the PCI windows only: so it never covers RAM, memory that is yet to
/// come, or the configuration space.
/// </summary>
/// <param name="map">Takes the slots.</param>
/// <param name="windows">Where BARs may be.</param>
internal sealed class BarMappings(MemoryMapOwner map, params AddressWindow[] windows) : IBarMappings
{
    /// <inheritdoc/>
    public bool TryMap(GuestAddress start, nint hostAddress, ulong length, bool isReadOnly)
    {
        if (!IsInWindow(start.Value, length))
        {
            return false;
        }

        try
        {
            map.AddMapping(new GuestRegion(start, new ByteSize(length), hostAddress), isReadOnly);
            return true;
        }
        catch (Exception refused) when (refused is KernelException or ArgumentException)
        {
            return false; // out of memory or slots, or over another BAR: this one stays unmapped, the VM goes on
        }
    }

    /// <inheritdoc/>
    public void Unmap(GuestAddress start) => map.RemoveMapping(start);

    private bool IsInWindow(ulong start, ulong length)
    {
        foreach (AddressWindow window in windows)
        {
            if (start >= window.Start.Value && start < window.End.Value && length <= window.End.Value - start)
            {
                return true;
            }
        }

        return false;
    }
}
