using Vmm.Cpu;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>
/// KVM opened and a VM in it, without memory: the part of a machine that needs nothing of the spec. A warm worker has it ready, with its
/// interrupt controllers and its boot CPU (<see cref="Complete"/>).
/// </summary>
public sealed class EmptyVm : IDisposable
{
    // One page for the identity map and three for the TSS that Intel hosts ask for, below 4 GiB and outside every
    // window of MemoryMap; not where firmware is, which ends at 4 GiB.
    private const ulong IdentityMapAddress = 0xFEFF_C000;
    private const uint TssAddress = (uint)IdentityMapAddress + 0x1000;

    /// <summary>Guest addresses that KVM may need for itself.</summary>
    internal static (ulong Start, ulong Length) KernelPages => (IdentityMapAddress, 4 * ByteSize.BytesPerPage);

    /// <summary>APIC id of the CPU that starts: every topology has it.</summary>
    internal const uint BootVcpuId = 0;

    private readonly List<IDisposable> _owned = [];
    private KvmInterrupts? _interrupts;
    private KvmVcpu? _bootVcpu;

    private EmptyVm(KvmSystem system)
    {
        System = Own(system);
        try
        {
            SupportedCpuid = System.GetSupportedCpuid();
            HostCpu = Vmm.Kvm.HostCpu.Describe(SupportedCpuid, System.GetFeatureMsrs());
            Vm = Own(System.CreateVm());
            KvmGuards.TryExitOnBusLocks(Vm);
            KvmGuards.TryExitOnNotify(Vm);
            Vm.SetIdentityMapAddress(IdentityMapAddress);
            Vm.SetTssAddress(TssAddress);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    internal KvmSystem System { get; }

    internal KvmCpuidEntry[] SupportedCpuid { get; }

    /// <summary>The processor that this KVM can show.</summary>
    internal CpuDescription HostCpu { get; }

    internal KvmVm Vm { get; }

    /// <summary>The interrupts; after <see cref="Complete"/>.</summary>
    internal KvmInterrupts Interrupts => _interrupts ?? throw new InvalidOperationException("the VM has no interrupt controllers yet");

    /// <summary>The CPU that starts; after <see cref="Complete"/>.</summary>
    internal KvmVcpu BootVcpu => _bootVcpu ?? throw new InvalidOperationException("the VM has no CPU yet");

    /// <summary>Opens KVM and makes the VM.</summary>
    /// <exception cref="KvmUnavailableException">No KVM, or no permission to use it.</exception>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public static EmptyVm Create() => Create(KvmSystem.Open());

    /// <summary>Makes the VM on a KVM that is open already; it is owned by the VM from here on, also when this fails.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public static EmptyVm Create(KvmSystem system) => new(system);

    /// <summary>
    /// Adds the interrupt controllers, the timer and the boot CPU, once. The kernel goes on with that for milliseconds (SRCU callbacks of
    /// its I/O buses), and a memory slot that is set meanwhile waits for it: a VM whose memory is known gets that first, one that waits in
    /// a pool has the time.
    /// </summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public void Complete()
    {
        if (_bootVcpu is not null)
        {
            return;
        }

        Vm.CreateIrqChip();
        Vm.CreatePit2(); // with port 0x61: what a guest without a paravirtual clock calibrates its TSC with
        _interrupts = Own(new KvmInterrupts(Vm));
        _bootVcpu = Own(Vm.CreateVcpu(BootVcpuId));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        for (int i = _owned.Count - 1; i >= 0; i--)
        {
            _owned[i].Dispose();
        }

        _owned.Clear();
    }

    private T Own<T>(T owned) where T : IDisposable
    {
        _owned.Add(owned);
        return owned;
    }
}
