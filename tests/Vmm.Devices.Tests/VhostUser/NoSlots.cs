using Vmm.Memory;

namespace Vmm.Devices.Tests.VhostUser;

/// <summary>No kernel that has memory slots.</summary>
internal sealed class NoSlots : IMemorySlots
{
    public void ChangeLog(in MemorySlot slot) { }

    public void TakeLog(in MemorySlot slot, Span<ulong> bitmap) => bitmap.Clear();

    public void Set(in MemorySlot slot) { }

    public void Remove(in MemorySlot slot) { }
}
