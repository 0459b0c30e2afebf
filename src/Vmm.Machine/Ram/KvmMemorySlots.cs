using Vmm.Kvm;
using Vmm.Memory;

namespace Vmm.Machine.Ram;

/// <summary>Memory slots of a KVM VM.</summary>
internal sealed class KvmMemorySlots(KvmVm vm) : IMemorySlots
{
    /// <inheritdoc/>
    public void Set(in MemorySlot slot)
    {
        GuestRegion region = slot.Region;
        vm.SetMemorySlot(slot.Number, region.Start.Value, region.Length, region.HostAddress, slot.IsReadOnly ? MemorySlotFlags.ReadOnly : MemorySlotFlags.None);
    }

    /// <inheritdoc/>
    public void Remove(in MemorySlot slot) => vm.RemoveMemorySlot(slot.Number);
}
