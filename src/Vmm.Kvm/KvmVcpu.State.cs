using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Vmm.Interop;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <content>Registers and other state; only while the vCPU is not running.</content>
public sealed partial class KvmVcpu
{
    private const int MsrsPerCall = 256;
    private const uint TscControl = 0;  // KVM_VCPU_TSC_CTRL
    private const ulong TscOffset = 0;  // KVM_VCPU_TSC_OFFSET

    /// <summary>General registers.</summary>
    public KvmRegs GetRegs() => Get<KvmRegs>(KvmRequest.KVM_GET_REGS);

    /// <summary>Sets general registers; drops a pending exception.</summary>
    public void SetRegs(in KvmRegs value) => Set(KvmRequest.KVM_SET_REGS, value);

    /// <summary>Segment, control and system registers.</summary>
    public KvmSregs GetSregs() => Get<KvmSregs>(KvmRequest.KVM_GET_SREGS);

    /// <summary>Sets segment, control and system registers.</summary>
    public void SetSregs(in KvmSregs value) => Set(KvmRequest.KVM_SET_SREGS, value);

    /// <summary>x87 and SSE registers.</summary>
    public KvmFpu GetFpu() => Get<KvmFpu>(KvmRequest.KVM_GET_FPU);

    /// <summary>Sets x87 and SSE registers.</summary>
    public void SetFpu(in KvmFpu value) => Set(KvmRequest.KVM_SET_FPU, value);

    /// <summary>The XSAVE area; 4096 bytes, or more where the guest may have larger state (KVM_CAP_XSAVE2).</summary>
    public byte[] GetXsave()
    {
        int size = Vm.CheckExtension(KvmCapability.Xsave2);
        byte[] area = new byte[Math.Max(size, 4096)];
        KvmRequest request = size > 4096 ? KvmRequest.KVM_GET_XSAVE2 : KvmRequest.KVM_GET_XSAVE;
        request.Check(_handle.Call(request, area));
        return area;
    }

    /// <summary>Sets the XSAVE area.</summary>
    /// <exception cref="ArgumentException">Shorter than this VM's area: the kernel would read beyond it.</exception>
    public void SetXsave(byte[] area)
    {
        int size = Math.Max(Vm.CheckExtension(KvmCapability.Xsave2), 4096);
        if (area.Length < size)
        {
            throw new ArgumentException($"The XSAVE area has {area.Length} bytes; this host needs {size}.", nameof(area));
        }

        KernelException.ThrowIfError(_handle.Call(KvmRequest.KVM_SET_XSAVE, area), "KVM_SET_XSAVE");
    }

    /// <summary>Extended control registers (XCR0).</summary>
    public KvmXcrs GetXcrs() => Get<KvmXcrs>(KvmRequest.KVM_GET_XCRS);

    /// <summary>Sets extended control registers.</summary>
    public void SetXcrs(in KvmXcrs value) => Set(KvmRequest.KVM_SET_XCRS, value);

    /// <summary>Debug registers.</summary>
    public KvmDebugregs GetDebugRegs() => Get<KvmDebugregs>(KvmRequest.KVM_GET_DEBUGREGS);

    /// <summary>Sets debug registers.</summary>
    public void SetDebugRegs(in KvmDebugregs value) => Set(KvmRequest.KVM_SET_DEBUGREGS, value);

    /// <summary>The local APIC's register page; needs an in-kernel interrupt controller.</summary>
    public KvmLapicState GetLapic() => Get<KvmLapicState>(KvmRequest.KVM_GET_LAPIC);

    /// <summary>Sets the local APIC's register page.</summary>
    public void SetLapic(in KvmLapicState value) => Set(KvmRequest.KVM_SET_LAPIC, value);

    /// <summary>Pending exceptions, interrupts, NMIs.</summary>
    public KvmVcpuEvents GetEvents() => Get<KvmVcpuEvents>(KvmRequest.KVM_GET_VCPU_EVENTS);

    /// <summary>Sets pending exceptions, interrupts, NMIs.</summary>
    public void SetEvents(in KvmVcpuEvents value) => Set(KvmRequest.KVM_SET_VCPU_EVENTS, value);

    /// <summary>Running, halted, waiting for SIPI.</summary>
    public KvmMpState GetMpState() => Get<KvmMpState>(KvmRequest.KVM_GET_MP_STATE);

    /// <summary>Sets running, halted, waiting for SIPI.</summary>
    public void SetMpState(KvmMpState value) => Set(KvmRequest.KVM_SET_MP_STATE, value);

    /// <summary>The CPUID table the guest sees.</summary>
    public KvmCpuidEntry[] GetCpuid()
    {
        for (int room = 128; ; room *= 2)
        {
            byte[] buffer = CpuidBuffer.Create(room);
            int answer = _handle.Call(KvmRequest.KVM_GET_CPUID2, buffer);
            if (answer == -Errno.E2BIG && room < 65536)
            {
                continue;
            }

            KernelException.ThrowIfError(answer, "KVM_GET_CPUID2");
            return CpuidBuffer.Entries(buffer);
        }
    }

    /// <summary>Sets the CPUID table; before the first run.</summary>
    public void SetCpuid(ReadOnlySpan<KvmCpuidEntry> entries) =>
        KernelException.ThrowIfError(_handle.Call(KvmRequest.KVM_SET_CPUID2, CpuidBuffer.Create(entries)), "KVM_SET_CPUID2");

    /// <summary>Guest TSC rate in kHz; 0 when the kernel cannot tell.</summary>
    public int GetTscKhz() => Math.Max(0, _handle.Call(KvmRequest.KVM_GET_TSC_KHZ));

    /// <summary>Sets the guest TSC rate. False when this host cannot scale to it.</summary>
    public bool TrySetTscKhz(int khz) => _handle.Call(KvmRequest.KVM_SET_TSC_KHZ, khz) >= 0;

    /// <summary>What the guest's TSC has more than the host's, in ticks of the guest. False when the kernel does not tell.</summary>
    public bool TryGetTscOffset(out ulong offset)
    {
        offset = 0;
        return _handle.Attribute(KvmRequest.KVM_GET_DEVICE_ATTR, TscControl, TscOffset, ref offset) >= 0;
    }

    /// <summary>Sets what <see cref="TryGetTscOffset"/> tells. False when the kernel does not take it.</summary>
    public bool TrySetTscOffset(ulong offset) =>
        _handle.Attribute(KvmRequest.KVM_SET_DEVICE_ATTR, TscControl, TscOffset, ref offset) >= 0;

    /// <summary>
    /// Tells a guest with kvmclock that it was paused, so that its watchdogs keep quiet. False when the guest has no kvmclock.
    /// </summary>
    public bool NotifyPaused()
    {
        int answer = _handle.Call(KvmRequest.KVM_KVMCLOCK_CTRL);
        return answer == -Errno.EINVAL ? false : KernelException.ThrowIfError(answer, "KVM_KVMCLOCK_CTRL") >= 0;
    }

    /// <summary>Guest physical address of a linear address by the guest's page tables; false when it is not mapped.</summary>
    public bool TryTranslate(ulong linear, out ulong physical)
    {
        KvmTranslation translation = new() { LinearAddress = linear };
        bool found = _handle.Call(KvmRequest.KVM_TRANSLATE, ref translation) >= 0 && translation.Valid != 0;
        physical = translation.PhysicalAddress;
        return found;
    }

    /// <summary>Reads MSRs. Those the kernel refuses are left out and their indices go to <paramref name="refused"/>.</summary>
    /// <exception cref="KernelException">The call itself failed.</exception>
    public KvmMsrEntry[] GetMsrs(ReadOnlySpan<uint> indices, ICollection<uint>? refused = null)
    {
        KvmMsrEntry[] entries = new KvmMsrEntry[indices.Length];
        for (int i = 0; i < entries.Length; i++)
        {
            entries[i].Index = indices[i];
        }

        return Msrs(KvmRequest.KVM_GET_MSRS, entries, refused);
    }

    /// <summary>
    /// Writes MSRs in the order given; those the kernel refuses are skipped and their indices go to <paramref name="refused"/>. Answers how
    /// many were written.
    /// </summary>
    /// <exception cref="KernelException">The call itself failed.</exception>
    public int SetMsrs(ReadOnlySpan<KvmMsrEntry> entries, ICollection<uint>? refused = null) =>
        Msrs(KvmRequest.KVM_SET_MSRS, entries, refused).Length;

    /// <summary>Chunks of at most <see cref="MsrsPerCall"/>; the kernel stops at the first MSR it refuses, so go on behind it.</summary>
    private KvmMsrEntry[] Msrs(KvmRequest request, ReadOnlySpan<KvmMsrEntry> entries, ICollection<uint>? refused)
    {
        KvmMsrEntry[] done = new KvmMsrEntry[entries.Length];
        int total = 0;
        int header = Unsafe.SizeOf<KvmMsrsHeader>();
        while (!entries.IsEmpty)
        {
            ReadOnlySpan<KvmMsrEntry> chunk = entries[..Math.Min(MsrsPerCall, entries.Length)];
            byte[] buffer = new byte[header + MemoryMarshal.AsBytes(chunk).Length];
            MemoryMarshal.Write(buffer, new KvmMsrsHeader { Nmsrs = (uint)chunk.Length });
            Span<KvmMsrEntry> values = MemoryMarshal.Cast<byte, KvmMsrEntry>(buffer.AsSpan(header));
            chunk.CopyTo(values);
            int count = request.Check(_handle.Call(request, buffer));
            values[..count].CopyTo(done.AsSpan(total));
            total += count;
            if (count < chunk.Length)
            {
                refused?.Add(chunk[count].Index);
                count++;
            }

            entries = entries[count..];
        }

        return total == done.Length ? done : done[..total];
    }

    private T Get<T>(KvmRequest request) where T : unmanaged
    {
        T value = default;
        request.Check(_handle.Call(request, ref value));
        return value;
    }

    private void Set<T>(KvmRequest request, T value) where T : unmanaged =>
        request.Check(_handle.Call(request, ref value));
}
