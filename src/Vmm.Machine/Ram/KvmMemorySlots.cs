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
        MemorySlotFlags flags = (slot.IsReadOnly ? MemorySlotFlags.ReadOnly : MemorySlotFlags.None)
            | (slot.IsLogged ? MemorySlotFlags.LogDirtyPages : MemorySlotFlags.None);
        vm.SetMemorySlot(slot.Number, region.Start.Value, region.Length, region.HostAddress, flags);
    }

    /// <inheritdoc/>
    public void ChangeLog(in MemorySlot slot) => Set(slot); // KVM changes the flags of a slot that is there

    /// <inheritdoc/>
    public void TakeLog(in MemorySlot slot, Span<ulong> bitmap) => vm.GetDirtyLog(slot.Number, slot.Region.Length, bitmap);

    /// <inheritdoc/>
    public void Remove(in MemorySlot slot) => vm.RemoveMemorySlot(slot.Number);
}
