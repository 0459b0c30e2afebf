namespace Vmm.Kvm;

/// <summary>Why <see cref="KvmVcpu.Run"/> came back (KVM_EXIT_*).</summary>
public enum KvmExit
{
    /// <summary>The kernel does not say.</summary>
    Unknown = 0,
    /// <summary>Port I/O: Io* members of the vCPU.</summary>
    Io = 2,
    /// <summary>Debug exception.</summary>
    Debug = 3,
    /// <summary>HLT, only without an in-kernel interrupt controller.</summary>
    Hlt = 5,
    /// <summary>Access to a guest physical address without RAM: Mmio* members.</summary>
    Mmio = 6,
    /// <summary>Interrupts can be injected now.</summary>
    IrqWindowOpen = 7,
    /// <summary>Triple fault.</summary>
    Shutdown = 8,
    /// <summary>The processor refused the guest state: <see cref="KvmVcpu.FailEntry"/>.</summary>
    FailEntry = 9,
    /// <summary>Kicked, or another signal: not an exit of the guest.</summary>
    Interrupted = 10,
    /// <summary>CR8 was lowered below what was set.</summary>
    SetTpr = 11,
    /// <summary>TPR access report.</summary>
    TprAccess = 12,
    /// <summary>KVM gave up: <see cref="KvmVcpu.InternalErrorCode"/>.</summary>
    InternalError = 17,
    /// <summary>Shutdown, reset or crash asked by the guest: <see cref="KvmVcpu.SystemEvent"/>.</summary>
    SystemEvent = 24,
    /// <summary>EOI of a level interrupt, with a split irqchip: <see cref="KvmVcpu.EoiVector"/>.</summary>
    IoApicEoi = 26,
    /// <summary>The dirty ring is full.</summary>
    DirtyRingFull = 31,
    /// <summary>The guest locked the memory bus; the instruction is done. Only with <see cref="KvmGuards.TryExitOnBusLocks"/>.</summary>
    BusLock = 33,
    /// <summary>
    /// The guest kept the processor from being interrupted. Only with <see cref="KvmGuards.TryExitOnNotify"/>:
    /// <see cref="KvmVcpu.IsContextLost"/>.
    /// </summary>
    Notify = 37,
}

/// <summary>What KVM_EXIT_FAIL_ENTRY tells.</summary>
/// <param name="HardwareReason">The processor's reason.</param>
/// <param name="Cpu">The host CPU.</param>
public readonly record struct FailEntryInfo(ulong HardwareReason, uint Cpu);

/// <summary>What KVM_EXIT_SYSTEM_EVENT tells.</summary>
/// <param name="Type">1 shutdown, 2 reset, 3 crash.</param>
public readonly record struct SystemEventInfo(uint Type);
