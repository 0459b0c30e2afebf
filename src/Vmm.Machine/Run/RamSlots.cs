using Vmm.Kvm;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>The KVM memory slots of the RAM that is there from the start.</summary>
internal static class RamSlots
{
    /// <summary>Most bytes of one slot. KVM takes 2^31 - 1 pages (KVM_MEM_MAX_NR_PAGES); a power of two keeps huge pages whole.</summary>
    internal const ulong Most = 4UL << 40;

    /// <summary>How many slots the regions need.</summary>
    internal static uint Count(ReadOnlySpan<GuestRegion> regions)
    {
        uint count = 0;
        foreach (ref readonly GuestRegion region in regions)
        {
            count += (uint)((region.Length.Bytes + Most - 1) / Most);
        }

        return count;
    }

    /// <summary>Gives the regions to KVM, in slots from 0 up.</summary>
    /// <exception cref="Interop.KernelException">KVM refused one.</exception>
    internal static void Set(KvmVm vm, ReadOnlySpan<GuestRegion> regions) =>
        Set(regions, (slot, guest, bytes, host) => vm.SetMemorySlot(slot, guest, bytes, host));

    /// <summary>As the other, with who takes the slots: number, guest address, bytes, host address.</summary>
    internal static void Set(ReadOnlySpan<GuestRegion> regions, Action<uint, ulong, ulong, nint> set)
    {
        uint slot = 0;
        foreach (ref readonly GuestRegion region in regions)
        {
            for (ulong at = 0; at < region.Length.Bytes; at += Most)
            {
                set(slot++, region.Start.Value + at, Math.Min(Most, region.Length.Bytes - at), region.HostAddress + (nint)at);
            }
        }
    }
}
