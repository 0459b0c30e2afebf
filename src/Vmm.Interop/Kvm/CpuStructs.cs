namespace Vmm.Interop.Kvm;

#pragma warning disable CS1591 // Fields carry the names they have in linux/kvm.h and asm/kvm.h; a compiled test proves the layout.

/// <summary>General registers (KVM_GET_REGS).</summary>
[KernelName("kvm_regs")]
public record struct KvmRegs
{
    public ulong Rax, Rbx, Rcx, Rdx, Rsi, Rdi, Rsp, Rbp;
    public ulong R8, R9, R10, R11, R12, R13, R14, R15;
    public ulong Rip, Rflags;
}

/// <summary>One segment register with its hidden part.</summary>
[KernelName("kvm_segment")]
public record struct KvmSegment
{
    public ulong Base;
    public uint Limit;
    public ushort Selector;
    public byte Type, Present, Dpl, Db, S, L, G, Avl, Unusable, Padding;
}

/// <summary>GDTR or IDTR.</summary>
[KernelName("kvm_dtable")]
public struct KvmDtable
{
    public ulong Base;
    public ushort Limit;
    public UInt16x3 Padding;
}

/// <summary>Segment, control and system registers (KVM_GET_SREGS).</summary>
[KernelName("kvm_sregs")]
public struct KvmSregs
{
    public KvmSegment Cs, Ds, Es, Fs, Gs, Ss, Tr, Ldt;
    public KvmDtable Gdt, Idt;
    public ulong Cr0, Cr2, Cr3, Cr4, Cr8, Efer, ApicBase;
    public UInt64x4 InterruptBitmap;
}

/// <summary>x87 and SSE registers (KVM_GET_FPU).</summary>
[KernelName("kvm_fpu")]
public struct KvmFpu
{
    public Bytes128 Fpr;
    public ushort Fcw, Fsw;
    public byte Ftwx, Pad1;
    public ushort LastOpcode;
    public ulong LastIp, LastDp;
    public Bytes256 Xmm;
    public uint Mxcsr, Pad2;
}

/// <summary>One extended control register.</summary>
[KernelName("kvm_xcr")]
public struct KvmXcr
{
    public uint Xcr, Reserved;
    public ulong Value;
}

/// <summary>Room for 16 <see cref="KvmXcr"/>.</summary>
[System.Runtime.CompilerServices.InlineArray(16)]
public struct KvmXcr16
{
    private KvmXcr _first;
}

/// <summary>Extended control registers (KVM_GET_XCRS).</summary>
[KernelName("kvm_xcrs")]
public struct KvmXcrs
{
    public uint NrXcrs, Flags;
    public KvmXcr16 Xcrs;
    public UInt64x16 Padding;
}

/// <summary>Debug registers (KVM_GET_DEBUGREGS).</summary>
[KernelName("kvm_debugregs")]
public struct KvmDebugregs
{
    public UInt64x4 Db;
    public ulong Dr6, Dr7, Flags;
    public UInt64x9 Reserved;
}

/// <summary>One MSR and its value, in the array after <see cref="KvmMsrsHeader"/>.</summary>
[KernelName("kvm_msr_entry")]
public record struct KvmMsrEntry
{
    public uint Index, Reserved;
    public ulong Data;
}

/// <summary>Start of the buffer of KVM_GET_MSRS and KVM_SET_MSRS.</summary>
[KernelName("kvm_msrs")]
public struct KvmMsrsHeader
{
    public uint Nmsrs, Pad;
}

/// <summary>Local APIC register page (KVM_GET_LAPIC).</summary>
[KernelName("kvm_lapic_state")]
public struct KvmLapicState
{
    public Bytes1024 Regs;
}

/// <summary>Pending and injected events (KVM_GET_VCPU_EVENTS).</summary>
[KernelName("kvm_vcpu_events")]
public struct KvmVcpuEvents
{
    [KernelName("exception.injected")] public byte ExceptionInjected;
    [KernelName("exception.nr")] public byte ExceptionNr;
    [KernelName("exception.has_error_code")] public byte ExceptionHasErrorCode;
    [KernelName("exception.pending")] public byte ExceptionPending;
    [KernelName("exception.error_code")] public uint ExceptionErrorCode;
    [KernelName("interrupt.injected")] public byte InterruptInjected;
    [KernelName("interrupt.nr")] public byte InterruptNr;
    [KernelName("interrupt.soft")] public byte InterruptSoft;
    [KernelName("interrupt.shadow")] public byte InterruptShadow;
    [KernelName("nmi.injected")] public byte NmiInjected;
    [KernelName("nmi.pending")] public byte NmiPending;
    [KernelName("nmi.masked")] public byte NmiMasked;
    [KernelName("nmi.pad")] public byte NmiPad;
    public uint SipiVector, Flags;
    [KernelName("smi.smm")] public byte SmiSmm;
    [KernelName("smi.pending")] public byte SmiPending;
    [KernelName("smi.smm_inside_nmi")] public byte SmiSmmInsideNmi;
    [KernelName("smi.latched_init")] public byte SmiLatchedInit;
    [KernelName("triple_fault.pending")] public byte TripleFaultPending;
    [KernelName("reserved")] public Bytes26 Reserved;
    public byte ExceptionHasPayload;
    public ulong ExceptionPayload;
}

/// <summary>Whether the vCPU runs, halts or waits for SIPI (KVM_GET_MP_STATE).</summary>
[KernelName("kvm_mp_state")]
public record struct KvmMpState
{
    public uint MpState;
}

/// <summary>One CPUID leaf (KVM_GET_SUPPORTED_CPUID, KVM_SET_CPUID2).</summary>
[KernelName("kvm_cpuid_entry2")]
public struct KvmCpuidEntry
{
    public uint Function, Index, Flags, Eax, Ebx, Ecx, Edx;
    public UInt32x3 Padding;
}

/// <summary>Start of the buffer of the CPUID calls.</summary>
[KernelName("kvm_cpuid2")]
public struct KvmCpuidHeader
{
    public uint Nent, Padding;
}

/// <summary>A linear address and where it lands (KVM_TRANSLATE).</summary>
[KernelName("kvm_translation")]
public struct KvmTranslation
{
    public ulong LinearAddress, PhysicalAddress;
    public byte Valid, Writeable, Usermode;
    public Bytes5 Pad;
}

/// <summary>Debug control (KVM_SET_GUEST_DEBUG).</summary>
[KernelName("kvm_guest_debug")]
public struct KvmGuestDebug
{
    public uint Control, Pad;
    [KernelName("arch.debugreg")] public UInt64x8 Debugreg;
}
