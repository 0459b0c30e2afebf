using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Kvm;

namespace Vmm.Machine.Run;

/// <summary>
/// KVM opened and a VM in it with its interrupt controllers, but without memory and vCPUs: the part of a machine that needs nothing of the
/// spec. A program that starts one VM makes it on a second thread while it reads spec and kernel; a warm worker has it ready.
/// </summary>
public sealed class EmptyVm : IDisposable
{
    // One page for the identity map and three for the TSS that Intel hosts ask for, below 4 GiB and outside every window of MemoryMap.
    private const ulong IdentityMapAddress = 0xFFFB_C000;
    private const uint TssAddress = (uint)IdentityMapAddress + 0x1000;

    private EmptyVm(KvmSystem system)
    {
        System = system;
        SupportedCpuid = system.GetSupportedCpuid();
        Vm = system.CreateVm();
    }

    internal KvmSystem System { get; }

    internal KvmVm Vm { get; }

    internal KvmCpuidEntry[] SupportedCpuid { get; }

    /// <summary>Opens KVM and makes the VM.</summary>
    /// <exception cref="KvmUnavailableException">No KVM, or no permission to use it.</exception>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public static EmptyVm Create()
    {
        KvmSystem system = KvmSystem.Open();
        EmptyVm? made = null;
        try
        {
            made = new EmptyVm(system);
            made.Vm.SetIdentityMapAddress(IdentityMapAddress);
            made.Vm.SetTssAddress(TssAddress);
            made.Vm.CreateIrqChip();
            return made;
        }
        catch
        {
            made?.Vm.Dispose();
            system.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Vm.Dispose();
        System.Dispose();
    }
}
