using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using Iced.Intel;
using Vmm.Interop;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>
/// The state of a vCPU as lines for people: what is asked for when a guest crashed its processor. A few dozen lines at most, whatever the
/// guest left in its registers. Only while the vCPU does not run.
/// </summary>
public static class VcpuReport
{
    private const int CodeBytes = 48, Instructions = 4, StackWords = 8, LongestInstruction = 15;
    private const uint HaltedState = 3; // KVM_MP_STATE_HALTED
    private const ulong ResetRip = 0xfff0, ResetCsBase = 0xffff_0000; // SDM vol. 3, table 10-1: where a processor begins after INIT

    // Vectors whose gates decide between an exception and a triple fault.
    private static readonly byte[] Gates = [2, 6, 8, 13, 14];

    private static readonly string[] Vectors =
    [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9", "#TS", "#NP", "#SS", "#GP", "#PF", "15", "#MF", "#AC", "#MC",
        "#XM", "#VE", "#CP",
    ];

    private static readonly string[] MpStates = ["runnable", "not started", "waits for SIPI", "halted", "got SIPI"];

    /// <summary>Reads bytes at a linear address until one cannot be read; answers how many.</summary>
    internal delegate int LinearReader(ulong linear, Span<byte> destination);

    /// <summary>
    /// True when KVM put the vCPU into the state of INIT before it told of the triple fault: it does so on AMD hosts, where the processor
    /// leaves no defined state behind. What the guest did can then only be seen from around it.
    /// </summary>
    public static bool IsReset(in KvmRegs regs, in KvmSregs sregs) =>
        regs.Rip == ResetRip && sregs.Cs.Base == ResetCsBase && (sregs.Cr0 & 1) == 0;

    /// <summary>
    /// Everything: registers, tables, events, code and stack. A part that the kernel does not give is said to be missing.
    /// </summary>
    public static IReadOnlyList<string> Full(KvmVcpu vcpu, IGuestPhysicalMemory memory)
    {
        try
        {
            GuestLinearMemory linear = new(vcpu, memory);
            return Full(vcpu.GetRegs(), vcpu.GetSregs(), vcpu.GetEvents(), vcpu.GetMpState().MpState, linear.ReadSome);
        }
        catch (KernelException cause)
        {
            return [$"its state cannot be read: {cause.Message}"];
        }
    }

    /// <summary>Where it stood, in one line.</summary>
    public static string Brief(KvmVcpu vcpu, IGuestPhysicalMemory memory)
    {
        try
        {
            GuestLinearMemory linear = new(vcpu, memory);
            return Brief(vcpu.GetRegs(), vcpu.GetSregs(), vcpu.GetMpState().MpState, linear.ReadSome);
        }
        catch (KernelException cause)
        {
            return $"its state cannot be read: {cause.Message}";
        }
    }

    internal static IReadOnlyList<string> Full(in KvmRegs regs, in KvmSregs sregs, in KvmVcpuEvents events, uint mpState, LinearReader read)
    {
        if (IsReset(regs, sregs))
        {
            return ["its registers are lost: KVM had reset it, as on every AMD host (the processor leaves no state after a shutdown)"];
        }

        List<string> lines =
        [
            $"{Mode(sregs)}, CPL {sregs.Ss.Dpl}, {MpState(mpState)}",
            $"rip {regs.Rip:x16} rsp {regs.Rsp:x16} rflags {regs.Rflags:x8}",
            $"rax {regs.Rax:x16} rbx {regs.Rbx:x16} rcx {regs.Rcx:x16} rdx {regs.Rdx:x16}",
            $"rsi {regs.Rsi:x16} rdi {regs.Rdi:x16} rbp {regs.Rbp:x16} r8  {regs.R8:x16}",
            $"r9  {regs.R9:x16} r10 {regs.R10:x16} r11 {regs.R11:x16} r12 {regs.R12:x16}",
            $"r13 {regs.R13:x16} r14 {regs.R14:x16} r15 {regs.R15:x16}",
            $"cr0 {sregs.Cr0:x8} cr2 {sregs.Cr2:x16} cr3 {sregs.Cr3:x16} cr4 {sregs.Cr4:x8} cr8 {sregs.Cr8:x} efer {sregs.Efer:x}",
            $"cs {sregs.Cs.Selector:x4} ss {sregs.Ss.Selector:x4} fs {sregs.Fs.Selector:x4} base {sregs.Fs.Base:x16} gs "
            + $"{sregs.Gs.Selector:x4} base {sregs.Gs.Base:x16} tr {sregs.Tr.Selector:x4} base {sregs.Tr.Base:x16}",
            $"gdt {sregs.Gdt.Base:x16} limit {sregs.Gdt.Limit:x4} idt {sregs.Idt.Base:x16} limit {sregs.Idt.Limit:x4}",
            "events: " + Events(events),
        ];
        AddCode(lines, regs, sregs, read);
        lines.Add("idt: " + InterruptTable(sregs, read));
        lines.Add("stack: " + Stack(regs, sregs, read));
        return lines;
    }

    internal static string Brief(in KvmRegs regs, in KvmSregs sregs, uint mpState, LinearReader read)
    {
        if (mpState is 1 or 2)
        {
            return MpState(mpState);
        }

        string code = Disassemble(regs, sregs, read, 1) is [var (_, text, _)] ? text : "code not readable";
        return $"{Mode(sregs)}, CPL {sregs.Ss.Dpl}, {MpState(mpState)}, rip {regs.Rip:x16} "
            + $"({(mpState == HaltedState ? "behind its hlt: " : "")}{code}) rsp {regs.Rsp:x16} rflags {regs.Rflags:x8} cr2 "
            + $"{sregs.Cr2:x16} cr3 {sregs.Cr3:x16}";
    }

    private static string Mode(in KvmSregs sregs) => (sregs.Cr0 & 1) == 0 ? "real mode"
        : sregs.Cs.L != 0 && (sregs.Efer & 0x400) != 0 ? "64-bit"
        : sregs.Cs.Db != 0 ? "32-bit"
        : "16-bit";

    private static int Bitness(in KvmSregs sregs) => sregs.Cs.L != 0 && (sregs.Efer & 0x400) != 0 ? 64 : sregs.Cs.Db != 0 ? 32 : 16;

    private static string MpState(uint state) => state < MpStates.Length ? MpStates[state] : $"state {state}";

    private static string Vector(byte vector) => vector < Vectors.Length ? Vectors[vector] : vector.ToString(CultureInfo.InvariantCulture);

    private static string Events(in KvmVcpuEvents events)
    {
        List<string> found = [];
        if ((events.ExceptionInjected | events.ExceptionPending) != 0)
        {
            found.Add(
                $"{Vector(events.ExceptionNr)} "
                + $"{(events.ExceptionPending != 0 ? "pending" : "under way")}"
                + $"{(events.ExceptionHasErrorCode != 0 ? $", error code 0x{events.ExceptionErrorCode:x}" : "")}");
        }

        if (events.InterruptInjected != 0)
        {
            found.Add($"interrupt 0x{events.InterruptNr:x2} under way");
        }

        if ((events.NmiInjected | events.NmiPending) != 0)
        {
            found.Add(events.NmiInjected != 0 ? "NMI under way" : "NMI pending");
        }

        if (events.NmiMasked != 0)
        {
            found.Add("NMIs masked");
        }

        if (events.InterruptShadow != 0)
        {
            found.Add("interrupts held off by the last instruction");
        }

        if (events.SmiSmm != 0)
        {
            found.Add("in system management mode");
        }

        return found.Count == 0 ? "none" : string.Join("; ", found);
    }

    private static void AddCode(List<string> lines, in KvmRegs regs, in KvmSregs sregs, LinearReader read)
    {
        List<(ulong Rip, string Text, string Bytes)> code = Disassemble(regs, sregs, read, Instructions);
        if (code.Count == 0)
        {
            lines.Add("code: not readable at rip");
        }

        foreach ((ulong rip, string text, string bytes) in code)
        {
            lines.Add($"code: {rip:x16} {text} [{bytes}]");
        }
    }

    private static List<(ulong Rip, string Text, string Bytes)> Disassemble(in KvmRegs regs, in KvmSregs sregs, LinearReader read, int most)
    {
        Span<byte> bytes = stackalloc byte[CodeBytes];
        int bitness = Bitness(sregs);
        bytes = bytes[..read(unchecked((bitness == 64 ? 0 : sregs.Cs.Base) + regs.Rip), bytes)];
        List<(ulong, string, string)> found = [];
        Iced.Intel.Decoder decoder = Iced.Intel.Decoder.Create(bitness, new ByteArrayCodeReader(bytes.ToArray()), regs.Rip);
        for (int at = 0; at < bytes.Length && found.Count < most;)
        {
            decoder.Decode(out Instruction instruction);
            if (instruction.IsInvalid)
            {
                // The rest of a page that was read, or no instruction at all.
                found.Add((instruction.IP, "(not an instruction)", Convert.ToHexStringLower(
                    bytes[at..Math.Min(at + LongestInstruction, bytes.Length)])));
                break;
            }

            found.Add((instruction.IP, instruction.ToString(), Convert.ToHexStringLower(bytes.Slice(at, instruction.Length))));
            at += instruction.Length;
        }

        return found;
    }

    /// <summary>64-bit gates, SDM vol. 3 section 6.14.1; those of other modes are not told.</summary>
    private static string InterruptTable(in KvmSregs sregs, LinearReader read)
    {
        if (Bitness(sregs) != 64)
        {
            return "(not of 64-bit mode)";
        }

        StringBuilder text = new();
        Span<byte> gate = stackalloc byte[16];
        foreach (byte vector in Gates)
        {
            text.Append(text.Length > 0 ? ", " : "").Append(Vector(vector)).Append(' ');
            int offset = vector * gate.Length;
            if (offset + gate.Length - 1 > sregs.Idt.Limit)
            {
                text.Append("beyond the limit");
            }
            else if (read(unchecked(sregs.Idt.Base + (ulong)offset), gate) < gate.Length)
            {
                text.Append("not readable");
            }
            else if ((gate[5] & 0x80) == 0)
            {
                text.Append("not present");
            }
            else
            {
                ulong target = BinaryPrimitives.ReadUInt16LittleEndian(gate)
                    | ((ulong)BinaryPrimitives.ReadUInt16LittleEndian(gate[6..]) << 16)
                    | ((ulong)BinaryPrimitives.ReadUInt32LittleEndian(gate[8..]) << 32);
                text.Append(CultureInfo.InvariantCulture, $"{BinaryPrimitives.ReadUInt16LittleEndian(gate[2..]):x4}:{target:x16}");
                if ((gate[4] & 7) != 0)
                {
                    text.Append(CultureInfo.InvariantCulture, $" ist {gate[4] & 7}");
                }
            }
        }

        return text.ToString();
    }

    private static string Stack(in KvmRegs regs, in KvmSregs sregs, LinearReader read)
    {
        int width = Bitness(sregs) / 8;
        Span<byte> bytes = stackalloc byte[StackWords * sizeof(ulong)];
        bytes = bytes[..(StackWords * width)];
        int count = read(unchecked((width == 8 ? 0 : sregs.Ss.Base) + regs.Rsp), bytes) / width;
        StringBuilder text = new();
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> word = bytes.Slice(i * width, width);
            ulong value = width switch
            {
                8 => BinaryPrimitives.ReadUInt64LittleEndian(word),
                4 => BinaryPrimitives.ReadUInt32LittleEndian(word),
                _ => BinaryPrimitives.ReadUInt16LittleEndian(word)
            };
            text.Append(i > 0 ? " " : "")
                .Append(value.ToString(width switch { 8 => "x16", 4 => "x8", _ => "x4" }, CultureInfo.InvariantCulture));
        }

        return count == 0 ? "not readable at rsp" : text.ToString();
    }
}
