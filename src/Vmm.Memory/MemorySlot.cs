namespace Vmm.Memory;

/// <summary>What is behind a memory slot.</summary>
public enum MemorySlotKind
{
    /// <summary>The guest's RAM, or a part of it that can come.</summary>
    Ram,

    /// <summary>Memory of a device that a BAR shows. Devices transfer with it as with RAM; from it only when it is read-only.</summary>
    Mapping,
}

/// <summary>A range of guest addresses that the guest reaches without an exit.</summary>
/// <param name="Number">Its number; of a slot that was removed, another gets it.</param>
/// <param name="Region">Where the guest sees it, and what is behind it.</param>
/// <param name="Kind">What is behind it.</param>
/// <param name="IsReadOnly">Guest writes come as exits.</param>
public readonly record struct MemorySlot(uint Number, GuestRegion Region, MemorySlotKind Kind, bool IsReadOnly)
{
    /// <summary>The hypervisor writes down which pages of it the guest writes.</summary>
    public bool IsLogged { get; init; }
}

/// <summary>Who makes memory slots reachable for the guest: KVM. Called by <see cref="MemoryMapOwner"/> only.</summary>
public interface IMemorySlots
{
    /// <summary>Makes the slot appear.</summary>
    /// <exception cref="Interop.KernelException">The kernel refused.</exception>
    void Set(in MemorySlot slot);

    /// <summary>Begins or ends the log of a slot that is there, by its <see cref="MemorySlot.IsLogged"/>. A log begins clean.</summary>
    /// <exception cref="Interop.KernelException">The kernel refused.</exception>
    void ChangeLog(in MemorySlot slot);

    /// <summary>Takes the pages that the guest wrote from the log of a slot; bit N is its page N. All other bits become zero.</summary>
    void TakeLog(in MemorySlot slot, Span<ulong> bitmap);

    /// <summary>Takes it away. The guest does not reach it from the return on.</summary>
    void Remove(in MemorySlot slot);
}
