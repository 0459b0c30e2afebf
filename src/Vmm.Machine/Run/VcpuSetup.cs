using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.Machine.Boot;

namespace Vmm.Machine.Run;

/// <summary>Gives vCPUs their first state.</summary>
internal static class VcpuSetup
{
    private const uint MsrMiscEnable = 0x1A0, MsrMtrrDefaultType = 0x2FF;

    /// <summary>MSRs a firmware would have set; one that this KVM does not have is left alone.</summary>
    internal static void SetFirmwareMsrs(KvmVcpu vcpu)
    {
        ReadOnlySpan<KvmMsrEntry> msrs =
        [
            new KvmMsrEntry { Index = MsrMiscEnable, Data = 1 },        // fast string operations
            new KvmMsrEntry { Index = MsrMtrrDefaultType, Data = 0x806 }, // MTRRs on, write-back by default
        ];
        vcpu.SetMsrs(msrs);
    }

    /// <summary>The boot CPU starts where the boot protocol says; the others wait for INIT and SIPI as KVM made them.</summary>
    internal static void SetBootCpu(KvmVcpu vcpu, InitialCpuState state)
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
}
