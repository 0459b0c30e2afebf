using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>An MSR and its value, in saved state.</summary>
public readonly record struct MsrValue(uint Index, ulong Value);

/// <summary>
/// Everything a vCPU is, as plain data. The byte arrays are the kernel's structs (x86 ABI, stable). Version 1 of this record never changes
/// shape. The state is untrusted until <see cref="Restore"/> has taken it.
/// </summary>
public sealed record KvmVcpuStateV1
{
    /// <summary>Names this record in a saved VM.</summary>
    public const string Kind = "kvm-vcpu";

    /// <summary>Version of this record.</summary>
    public const int Version = 1;

    private const uint MsrTsc = 0x10, MsrTscDeadline = 0x6e0;

    /// <summary>Guest TSC rate in kHz; 0: unknown.</summary>
    public required int TscKhz { get; init; }

    /// <summary>CPUID leaves, struct kvm_cpuid_entry2 each.</summary>
    public required byte[] Cpuid { get; init; }

    /// <summary>KVM_MP_STATE_*.</summary>
    public required uint MpState { get; init; }

    /// <summary>struct kvm_regs.</summary>
    public required byte[] Regs { get; init; }

    /// <summary>struct kvm_sregs.</summary>
    public required byte[] Sregs { get; init; }

    /// <summary>struct kvm_xsave, possibly longer (KVM_CAP_XSAVE2).</summary>
    public required byte[] Xsave { get; init; }

    /// <summary>struct kvm_xcrs.</summary>
    public required byte[] Xcrs { get; init; }

    /// <summary>struct kvm_debugregs.</summary>
    public required byte[] DebugRegs { get; init; }

    /// <summary>struct kvm_lapic_state; null without an in-kernel interrupt controller.</summary>
    public byte[]? Lapic { get; init; }

    /// <summary>MSRs in the order they are to be written.</summary>
    public required IReadOnlyList<MsrValue> Msrs { get; init; }

    /// <summary>struct kvm_vcpu_events.</summary>
    public required byte[] Events { get; init; }

    /// <summary>
    /// Reads the whole state. The vCPU is not running, and <see cref="KvmVcpu.CompletePendingIo"/> has answered Interrupted since its last
    /// I/O exit. MP state comes first, because reading it may deliver INIT/SIPI; MSRs come after the LAPIC, which may settle a timer;
    /// events come last.
    /// </summary>
    /// <exception cref="Interop.KernelException">The kernel refused.</exception>
    public static KvmVcpuStateV1 Capture(KvmVcpu vcpu)
    {
        uint mpState = vcpu.GetMpState().MpState;
        byte[] regs = Bytes(vcpu.GetRegs());
        byte[] sregs = Bytes(vcpu.GetSregs());
        byte[] xsave = vcpu.GetXsave();
        byte[] xcrs = Bytes(vcpu.GetXcrs());
        byte[] debug = Bytes(vcpu.GetDebugRegs());
        byte[]? lapic = vcpu.Vm.HasKernelApic ? Bytes(vcpu.GetLapic()) : null;
        KvmMsrEntry[] msrs = vcpu.GetMsrs(vcpu.Vm.System.GetMsrIndexList());
        return new KvmVcpuStateV1
        {
            TscKhz = vcpu.GetTscKhz(),
            Cpuid = MemoryMarshal.AsBytes<KvmCpuidEntry>(vcpu.GetCpuid()).ToArray(),
            MpState = mpState,
            Regs = regs,
            Sregs = sregs,
            Xsave = xsave,
            Xcrs = xcrs,
            DebugRegs = debug,
            Lapic = lapic,
            Msrs = [.. msrs.Select(m => new MsrValue(m.Index, m.Data)).OrderBy(WriteOrder)],
            Events = Bytes(vcpu.GetEvents()),
        };
    }

    /// <summary>
    /// Writes the whole state into a fresh vCPU. CPUID first (it decides what else is allowed), SREGS before the LAPIC (APIC base and
    /// mode), XCR0 before XSAVE, MSRs after the LAPIC (TSC first, TSC deadline last), events last.
    /// </summary>
    /// <returns>Indices of MSRs that the kernel would not take and whose value here differs; empty when the state is whole.</returns>
    /// <exception cref="InvalidDataException">A part has the wrong length.</exception>
    /// <exception cref="Interop.KernelException">The kernel refused a part.</exception>
    public IReadOnlyList<uint> Restore(KvmVcpu vcpu)
    {
        KvmRegs regs = Parse<KvmRegs>(Regs, nameof(Regs));
        KvmSregs sregs = Parse<KvmSregs>(Sregs, nameof(Sregs));
        KvmXcrs xcrs = Parse<KvmXcrs>(Xcrs, nameof(Xcrs));
        KvmDebugregs debug = Parse<KvmDebugregs>(DebugRegs, nameof(DebugRegs));
        KvmVcpuEvents events = Parse<KvmVcpuEvents>(Events, nameof(Events));
        KvmLapicState? lapic = Lapic is null ? null : Parse<KvmLapicState>(Lapic, nameof(Lapic));
        int leaf = Unsafe.SizeOf<KvmCpuidEntry>();
        if (Cpuid.Length % leaf != 0)
        {
            throw new InvalidDataException($"vCPU state: Cpuid has {Cpuid.Length} bytes, not a multiple of {leaf}.");
        }

        if ((Lapic is not null) != vcpu.Vm.HasKernelApic)
        {
            throw new InvalidDataException($"vCPU state: it was saved {(Lapic is null ? "without" : "with")} an in-kernel interrupt "
                + "controller; this VM is the other kind.");
        }

        vcpu.SetCpuid(MemoryMarshal.Cast<byte, KvmCpuidEntry>(Cpuid));
        if (TscKhz > 0 && TscKhz != vcpu.GetTscKhz())
        {
            vcpu.TrySetTscKhz(TscKhz);
        }

        vcpu.SetMpState(new KvmMpState { MpState = MpState });
        vcpu.SetSregs(sregs);
        vcpu.SetRegs(regs);
        if (xcrs.NrXcrs > 0) // a host without XSAVE has none, and its KVM refuses to set them
        {
            vcpu.SetXcrs(xcrs);
        }

        vcpu.SetXsave(FitXsave(vcpu));
        vcpu.SetDebugRegs(debug);
        if (lapic is not null)
        {
            vcpu.SetLapic(lapic.Value);
        }

        List<uint> refused = [];
        vcpu.SetMsrs([.. Msrs.Select(m => new KvmMsrEntry { Index = m.Index, Data = m.Value })], refused);
        vcpu.SetEvents(events);
        return StillDifferent(vcpu, refused);
    }

    private static int WriteOrder(MsrValue msr) => msr.Index switch { MsrTsc => 0, MsrTscDeadline => 2, _ => 1 };

    /// <summary>A host with a larger area gets zeroes behind the saved one: those components are in their initial state.</summary>
    private byte[] FitXsave(KvmVcpu vcpu)
    {
        int size = Math.Max(4096, vcpu.Vm.CheckExtension(KvmCapability.Xsave2));
        if (Xsave.Length is < 4096 or > 65536)
        {
            throw new InvalidDataException($"vCPU state: Xsave has {Xsave.Length} bytes.");
        }

        byte[] area = new byte[Math.Max(size, Xsave.Length)];
        Xsave.CopyTo(area, 0);
        return area;
    }

    private List<uint> StillDifferent(KvmVcpu vcpu, List<uint> refused)
    {
        if (refused.Count == 0)
        {
            return refused;
        }

        KvmMsrEntry[] now = vcpu.GetMsrs([.. refused]);
        return [.. refused.Where(index => !now.Any(n => n.Index == index && Msrs.Any(m => m.Index == index && m.Value == n.Data)))];
    }

    private static byte[] Bytes<T>(T value) where T : unmanaged => KernelBytes.Of(value);

    private static T Parse<T>(byte[] bytes, string part) where T : unmanaged => KernelBytes.Parse<T>(bytes, $"vCPU state: {part}");
}
