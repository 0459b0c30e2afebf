using Vmm.Interop;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <content>Which pages the guest wrote.</content>
public sealed partial class KvmVm
{
    private const ulong ManualProtect = 1, InitiallySet = 2;

    /// <summary>True when the dirty log can be read and cleared in two steps.</summary>
    public bool HasManualDirtyLogProtect => CheckExtension(KvmCapability.ManualDirtyLogProtect2) != 0;

    /// <summary>
    /// From now on <see cref="GetDirtyLog"/> only reads, and <see cref="ClearDirtyLog"/> protects pages again; before a slot logs. With
    /// <paramref name="initiallySet"/> a slot starts with every page dirty.
    /// </summary>
    /// <exception cref="KernelException">The kernel cannot.</exception>
    public void EnableManualDirtyLogProtect(bool initiallySet = false) =>
        EnableCapability(KvmCapability.ManualDirtyLogProtect2, ManualProtect | (initiallySet ? InitiallySet : 0));

    /// <summary>Words a slot's bitmap needs: one bit a page, in 64-bit words.</summary>
    public static int DirtyBitmapWords(ulong slotBytes) => checked((int)(((slotBytes / 4096) + 63) / 64));

    /// <summary>
    /// The pages written since the last get (or clear, with manual protect): bit n of the bitmap is page n of the slot.
    /// </summary>
    /// <param name="slot">A slot with <see cref="MemorySlotFlags.LogDirtyPages"/>.</param>
    /// <param name="slotBytes">The size the slot was set with.</param>
    /// <param name="bitmap">At least <see cref="DirtyBitmapWords"/> long.</param>
    /// <exception cref="ArgumentException">The bitmap is too short.</exception>
    /// <exception cref="KernelException">The slot does not log.</exception>
    public void GetDirtyLog(uint slot, ulong slotBytes, Span<ulong> bitmap)
    {
        if (bitmap.Length < DirtyBitmapWords(slotBytes))
        {
            throw new ArgumentException(
                $"Slot {slot} needs {DirtyBitmapWords(slotBytes)} words of bitmap, not {bitmap.Length}.", nameof(bitmap));
        }

        KvmRequest.KVM_GET_DIRTY_LOG.Check(_handle.GetDirtyLog(slot, bitmap), "slot", slot);
    }

    /// <summary>Forgets the pages whose bits are set and protects them again (manual protect only).</summary>
    /// <param name="slot">The slot.</param>
    /// <param name="firstPage">A multiple of 64.</param>
    /// <param name="pages">A multiple of 64, or up to the end of the slot.</param>
    /// <param name="bitmap">Bit 0 is <paramref name="firstPage"/>.</param>
    /// <exception cref="ArgumentException">The bitmap is too short.</exception>
    /// <exception cref="KernelException">Not enabled, or a range outside the slot.</exception>
    public void ClearDirtyLog(uint slot, ulong firstPage, uint pages, ReadOnlySpan<ulong> bitmap)
    {
        if ((ulong)bitmap.Length * 64 < pages)
        {
            throw new ArgumentException($"{pages} pages need {(pages + 63) / 64} words of bitmap, not {bitmap.Length}.", nameof(bitmap));
        }

        KvmRequest.KVM_CLEAR_DIRTY_LOG.Check(_handle.ClearDirtyLog(slot, firstPage, pages, bitmap), "slot", slot);
    }

    /// <summary>Largest dirty ring the kernel offers, in bytes; 0: none.</summary>
    public int MaxDirtyRingBytes => CheckExtension(KvmCapability.DirtyLogRing);

    /// <summary>Bytes of each vCPU's dirty ring; 0: none was enabled.</summary>
    public int DirtyRingBytes { get; private set; }

    /// <summary>
    /// Each vCPU gets a ring of <paramref name="bytes"/> (a power of two, at least a page); before the first vCPU. Then there are no
    /// bitmaps: <see cref="GetDirtyLog"/> is refused.
    /// </summary>
    /// <exception cref="KernelException">The kernel cannot.</exception>
    public void EnableDirtyRing(int bytes)
    {
        EnableCapability(KvmCapability.DirtyLogRing, (ulong)bytes);
        DirtyRingBytes = bytes;
    }

    /// <summary>Takes back ring entries that were collected and protects their pages again; answers how many.</summary>
    public int ResetDirtyRings() => Check(KvmRequest.KVM_RESET_DIRTY_RINGS);
}
