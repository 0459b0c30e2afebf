using Microsoft.Win32.SafeHandles;
using Vmm.Interop.Libc;

namespace Vmm.Interop.Kvm;

/// <summary>
/// The dirty ring of one vCPU as the kernel shares it: entries of <see cref="KvmDirtyGfn"/>, written by the kernel, given back by their
/// reader (Documentation/virt/kvm/api.rst, 8.29).
/// </summary>
public sealed class DirtyRingMapping : SafeHandleMinusOneIsInvalid
{
    private const uint Dirty = 1, Reset = 2; // KVM_DIRTY_GFN_F_*

    private readonly int _length;
    private readonly int _mask;

    internal unsafe DirtyRingMapping(VcpuHandle vcpu, int length) : base(ownsHandle: true)
    {
        nint at = Native.VcpuMapDirtyRing(vcpu, (ulong)length, out int errno);
        if (at == -1)
        {
            throw new KernelException("mmap of a dirty ring", errno);
        }

        _length = length;
        _mask = (length / sizeof(KvmDirtyGfn)) - 1;
        SetHandle(at);
    }

    /// <summary>Number of entries.</summary>
    public int Count => _mask + 1;

    /// <summary>
    /// Takes an entry if the kernel has filled it: what it says is read before it is given back, and it is the kernel's again at the next
    /// KVM_RESET_DIRTY_RINGS.
    /// </summary>
    /// <param name="index">Entries are filled in turn; taken modulo <see cref="Count"/>.</param>
    /// <param name="slot">Memory slot.</param>
    /// <param name="page">Page within the slot.</param>
    /// <exception cref="ObjectDisposedException">It is unmapped.</exception>
    public unsafe bool TryTake(uint index, out uint slot, out ulong page)
    {
        ObjectDisposedException.ThrowIf(IsClosed, this);
        KvmDirtyGfn* entry = (KvmDirtyGfn*)handle + (index & (uint)_mask);
        if ((Volatile.Read(ref entry->Flags) & Dirty) == 0)
        {
            (slot, page) = (0, 0);
            return false;
        }

        (slot, page) = (entry->Slot, entry->Offset);
        Volatile.Write(ref entry->Flags, Reset);
        return true;
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => MemoryCalls.Unmap(handle, (ulong)_length) == 0;
}
