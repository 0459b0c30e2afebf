using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>Exits that keep a guest from slowing the whole host down. Switched on before the first vCPU.</summary>
public static class KvmGuards
{
    private const ulong BusLockExit = 1 << 1; // KVM_BUS_LOCK_DETECTION_EXIT
    private const ulong NotifyEnabled = 1 << 0, NotifyUser = 1 << 1; // KVM_X86_NOTIFY_VMEXIT_*

    /// <summary>
    /// Has every bus lock of the guest (a locked access over two cache lines, or to uncached memory) end in <see cref="KvmExit.BusLock"/>
    /// (KVM_CAP_X86_BUS_LOCK_EXIT).
    /// </summary>
    /// <returns>False: the processor, or KVM, does not tell of them.</returns>
    /// <exception cref="Interop.KernelException">KVM refused although it says that it can.</exception>
    public static bool TryExitOnBusLocks(KvmVm vm)
    {
        if (((ulong)vm.CheckExtension(KvmCapability.X86BusLockExit) & BusLockExit) == 0)
        {
            return false;
        }

        vm.EnableCapability(KvmCapability.X86BusLockExit, BusLockExit);
        return true;
    }

    /// <summary>
    /// Has a guest that keeps the processor from taking any event for the kernel's own window of time end in <see cref="KvmExit.Notify"/>
    /// (KVM_CAP_X86_NOTIFY_VMEXIT).
    /// </summary>
    /// <returns>False: the processor, or KVM, has no such exit.</returns>
    /// <exception cref="Interop.KernelException">KVM refused although it says that it can.</exception>
    public static bool TryExitOnNotify(KvmVm vm)
    {
        if (vm.CheckExtension(KvmCapability.X86NotifyVmexit) == 0)
        {
            return false;
        }

        vm.EnableCapability(KvmCapability.X86NotifyVmexit, NotifyEnabled | NotifyUser);
        return true;
    }
}
