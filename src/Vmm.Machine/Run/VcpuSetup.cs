using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.Machine.Boot;

namespace Vmm.Machine.Run;

/// <summary>What a vCPU is given before it runs.</summary>
internal interface IVcpuState
{
    /// <summary>The CPUID table.</summary>
    void SetCpuid(ReadOnlySpan<KvmCpuidEntry> entries);

    /// <summary>MSRs; one that this KVM does not have is left alone.</summary>
    void SetMsrs(ReadOnlySpan<KvmMsrEntry> entries);

    /// <summary>Segment, control and system registers as they are.</summary>
    KvmSregs GetSregs();

    /// <summary>Segment, control and system registers.</summary>
    void SetSregs(in KvmSregs value);

    /// <summary>General registers.</summary>
    void SetRegs(in KvmRegs value);
}

/// <summary>Gives vCPUs their first state.</summary>
internal static class VcpuSetup
{
    private const uint MsrMiscEnable = 0x1A0, MsrMtrrDefaultType = 0x2FF;

    /// <summary>
    /// All of it. CPUID comes before the MSRs: which MSRs and which of their bits exist is what CPUID says (KVM checks one by the other).
    /// </summary>
    /// <param name="vcpu">The vCPU; nothing of it was set.</param>
    /// <param name="cpuid">Its CPUID table.</param>
    /// <param name="features">Feature MSRs, which say what the processor can do; before those that a firmware sets.</param>
    /// <param name="boot">Where it starts; null for one that waits for INIT and SIPI, or starts as a reset leaves it.</param>
    /// <param name="byFirmware">Firmware sets the MSRs that are its own.</param>
    internal static void Apply(
        IVcpuState vcpu, ReadOnlySpan<KvmCpuidEntry> cpuid, ReadOnlySpan<KvmMsrEntry> features, InitialCpuState? boot,
        bool byFirmware = false)
    {
        vcpu.SetCpuid(cpuid);
        vcpu.SetMsrs(byFirmware ? features : [.. features, .. FirmwareMsrs]);
        if (boot is not null)
        {
            SetBootCpu(vcpu, boot);
        }
    }

    /// <inheritdoc cref="Apply(IVcpuState, ReadOnlySpan{KvmCpuidEntry}, ReadOnlySpan{KvmMsrEntry}, InitialCpuState?, bool)"/>
    internal static void Apply(
        KvmVcpu vcpu, ReadOnlySpan<KvmCpuidEntry> cpuid, ReadOnlySpan<KvmMsrEntry> features, InitialCpuState? boot,
        bool byFirmware = false) =>
        Apply(new KvmState(vcpu), cpuid, features, boot, byFirmware);

    /// <summary>
    /// KVM finds the target of an interprocessor interrupt in a map that it makes anew when a local APIC changes. It also does while it
    /// makes a vCPU, but before that vCPU is one of the VM's: the last one is missing, and INIT and SIPI of a guest that enables no local
    /// APIC first (memtest86+) do not reach it. Firmware, which enables them, hides that elsewhere.
    /// </summary>
    /// <param name="last">The vCPU that was made last.</param>
    internal static void CompleteApicMap(KvmVcpu last) => last.SetLapic(last.GetLapic());

    /// <summary>MSRs a firmware would have set.</summary>
    private static KvmMsrEntry[] FirmwareMsrs =>
    [
        new KvmMsrEntry { Index = MsrMiscEnable, Data = 1 },        // fast string operations
        new KvmMsrEntry { Index = MsrMtrrDefaultType, Data = 0x806 }, // MTRRs on, write-back by default
    ];

    /// <summary>The boot CPU starts where the boot protocol says; the others wait for INIT and SIPI as KVM made them.</summary>
    private static void SetBootCpu(IVcpuState vcpu, InitialCpuState state)
    {
        KvmSregs sregs = vcpu.GetSregs();
        sregs.Cs = Segment(state.Code);
        sregs.Ds = sregs.Es = sregs.Fs = sregs.Gs = sregs.Ss = Segment(state.Data);
        sregs.Tr = Segment(state.Task);
        sregs.Gdt.Base = state.GdtBase;
        sregs.Gdt.Limit = state.GdtLimit;
        sregs.Idt.Base = 0;
        sregs.Idt.Limit = 0;
        sregs.Cr0 = state.Cr0;
        sregs.Cr3 = state.Cr3;
        sregs.Cr4 = state.Cr4;
        sregs.Efer = state.Efer;
        vcpu.SetSregs(sregs);
        vcpu.SetRegs(new KvmRegs { Rip = state.Rip, Rsp = state.Rsp, Rsi = state.Rsi, Rbx = state.Rbx, Rflags = state.Rflags });
    }

    private static KvmSegment Segment(BootSegment segment) => new()
    {
        Base = segment.Base,
        Limit = segment.Limit,
        Selector = segment.Selector,
        Type = segment.Type,
        Present = 1,
        S = segment.System ? (byte)0 : (byte)1,
        L = segment.Long ? (byte)1 : (byte)0,
        Db = segment.Default32 ? (byte)1 : (byte)0,
        G = segment.Granular4K ? (byte)1 : (byte)0,
    };

    private sealed class KvmState(KvmVcpu vcpu) : IVcpuState
    {
        public void SetCpuid(ReadOnlySpan<KvmCpuidEntry> entries) => vcpu.SetCpuid(entries);

        public void SetMsrs(ReadOnlySpan<KvmMsrEntry> entries) => vcpu.SetMsrs(entries);

        public KvmSregs GetSregs() => vcpu.GetSregs();

        public void SetSregs(in KvmSregs value) => vcpu.SetSregs(value);

        public void SetRegs(in KvmRegs value) => vcpu.SetRegs(value);
    }
}
