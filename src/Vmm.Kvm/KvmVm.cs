using Vmm.Interop;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>Flags of a memory slot (KVM_MEM_*).</summary>
[Flags]
public enum MemorySlotFlags
{
    /// <summary>Plain RAM.</summary>
    None = 0,
    /// <summary>The kernel keeps a dirty log of the slot.</summary>
    LogDirtyPages = 1,
    /// <summary>Guest writes become MMIO exits.</summary>
    ReadOnly = 2,
}

/// <summary>
/// One KVM virtual machine: memory slots, interrupt controllers, event descriptors, clock. Its parts are in the KvmVm.*.cs files.
/// </summary>
/// <remarks>Calls may come from any thread; the kernel orders them.</remarks>
public sealed partial class KvmVm : IDisposable
{
    private readonly KvmHandle _handle;

    internal KvmVm(KvmSystem system, KvmHandle handle)
    {
        System = system;
        _handle = handle;
    }

    /// <summary>The device this VM was made on.</summary>
    public KvmSystem System { get; }

    /// <summary>As <see cref="KvmSystem.CheckExtension"/>, answered for this VM.</summary>
    public int CheckExtension(KvmCapability capability) => Math.Max(0, _handle.Call(KvmRequest.KVM_CHECK_EXTENSION, (nint)capability));

    /// <summary>Creates the vCPU with this APIC id; after the interrupt controller, if there is one.</summary>
    /// <exception cref="KernelException">The id is taken or out of range.</exception>
    public KvmVcpu CreateVcpu(uint id) => new(this, VcpuHandle.Create(_handle, id, System.VcpuMmapSize), id);

    /// <summary>Which vCPU starts by itself (default 0); before the first vCPU is created.</summary>
    public void SetBootCpu(uint id) => Check(KvmRequest.KVM_SET_BOOT_CPU_ID, (nint)id);

    /// <summary>
    /// Makes <paramref name="size"/> bytes at <paramref name="hostAddress"/> appear at the guest physical address; size 0 removes the slot.
    /// </summary>
    /// <exception cref="KernelException">Not page aligned, overlapping, or no such slot number.</exception>
    public void SetMemorySlot(uint slot, ulong guestPhysical, ulong size, nint hostAddress, MemorySlotFlags flags = MemorySlotFlags.None)
    {
        KvmUserspaceMemoryRegion region = new()
        {
            Slot = slot,
            Flags = (uint)flags,
            GuestPhysAddr = guestPhysical,
            MemorySize = size,
            UserspaceAddr = (ulong)hostAddress,
        };
        int answer = _handle.Call(KvmRequest.KVM_SET_USER_MEMORY_REGION, ref region);
        if (answer < 0)
        {
            throw new KernelException($"KVM_SET_USER_MEMORY_REGION slot {slot} at 0x{guestPhysical:x}, 0x{size:x} bytes", -answer);
        }
    }

    /// <summary>Removes a slot.</summary>
    public void RemoveMemorySlot(uint slot) => SetMemorySlot(slot, 0, 0, 0);

    /// <summary>Three pages below 4 GiB, outside RAM, that KVM may use (Intel hosts need them).</summary>
    public void SetTssAddress(uint address) => Check(KvmRequest.KVM_SET_TSS_ADDR, (nint)address);

    /// <summary>One page below 4 GiB, outside RAM, that KVM may use; before the first vCPU is created.</summary>
    public void SetIdentityMapAddress(ulong address) => Check(KvmRequest.KVM_SET_IDENTITY_MAP_ADDR, ref address);

    /// <summary>Switches a capability on, with up to four numbers.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public void EnableCapability(KvmCapability capability, ulong argument0 = 0, ulong argument1 = 0)
    {
        KvmEnableCap cap = new() { Cap = (uint)capability };
        cap.Args[0] = argument0;
        cap.Args[1] = argument1;
        KvmRequest.KVM_ENABLE_CAP.Check(_handle.Call(KvmRequest.KVM_ENABLE_CAP, ref cap), "capability", (uint)capability);
    }

    /// <summary>Nanoseconds of kvmclock.</summary>
    public KvmClockData GetClock()
    {
        KvmClockData clock = default;
        Check(KvmRequest.KVM_GET_CLOCK, ref clock);
        return clock;
    }

    /// <summary>Sets kvmclock from <paramref name="clock"/>; only the nanoseconds count, the host's times are not carried over.</summary>
    public void SetClock(in KvmClockData clock)
    {
        KvmClockData copy = new() { Clock = clock.Clock };
        Check(KvmRequest.KVM_SET_CLOCK, ref copy);
    }

    /// <inheritdoc/>
    public void Dispose() => _handle.Dispose();

    private int Check(KvmRequest request, nint argument = 0) => request.Check(_handle.Call(request, argument));

    private int Check<T>(KvmRequest request, ref T argument) where T : unmanaged => request.Check(_handle.Call(request, ref argument));
}
