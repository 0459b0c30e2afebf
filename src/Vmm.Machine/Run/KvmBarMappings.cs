using Vmm.Devices.Pci;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.Machine.Layout;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>
/// Memory behind BARs as KVM memory slots. They have the last slot numbers that KVM knows, RAM has those from 0 up. A guest may put a BAR
/// inside the PCI
/// windows only: so it never covers RAM, memory that is yet to come, or the configuration space.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="windows">Where BARs may be.</param>
internal sealed class KvmBarMappings(KvmVm vm, params AddressWindow[] windows) : IBarMappings
{
    private const int MostSlots = 64;

    private readonly uint _firstSlot = (uint)Math.Max(vm.CheckExtension(KvmCapability.NrMemorySlots) - MostSlots, 1);
    private readonly ulong?[] _slots = new ulong?[MostSlots]; // the guest address of each that is in use

    /// <inheritdoc/>
    public bool TryMap(GuestAddress start, nint hostAddress, ulong length, bool isReadOnly)
    {
        int slot = Array.IndexOf(_slots, null);
        if (slot < 0 || !IsInWindow(start.Value, length))
        {
            return false;
        }

        try
        {
            MemorySlotFlags flags = isReadOnly ? MemorySlotFlags.ReadOnly : MemorySlotFlags.None;
            vm.SetMemorySlot(_firstSlot + (uint)slot, start.Value, length, hostAddress, flags);
        }
        catch (KernelException)
        {
            return false; // out of memory: the BAR stays unmapped, the VM goes on
        }

        _slots[slot] = start.Value;
        return true;
    }

    /// <inheritdoc/>
    public void Unmap(GuestAddress start)
    {
        int slot = Array.IndexOf(_slots, start.Value);
        if (slot >= 0)
        {
            vm.RemoveMemorySlot(_firstSlot + (uint)slot);
            _slots[slot] = null;
        }
    }

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
