using System.Buffers.Binary;
using System.Numerics;
using Iced.Intel;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>
/// Finishes the few CPL 0 instructions that an emulating KVM gives up on (KVM_EXIT_INTERNAL_ERROR, suberror 1): int3, clac, stac, ldmxcsr,
/// stmxcsr, fldcw, fnstsw ax, fwait, fnclex, emms, popcnt, rdtscp, xgetbv. For anything else it says what the guest tried, and the VM ends.
/// One per vCPU, used by its thread.
/// </summary>
public sealed class EmulationAssist(KvmVcpu vcpu, IGuestPhysicalMemory memory)
{
    private const uint SuberrorEmulation = 1;
    private const ulong FlagCf = 1, FlagPf = 4, FlagAf = 0x10, FlagZf = 0x40, FlagSf = 0x80, FlagOf = 0x800, FlagAc = 1 << 18;
    private const byte BreakpointVector = 3, GeneralProtectionVector = 13;
    private const uint MsrTsc = 0x10, MsrTscAux = 0xc0000103;
    private const int MaxInstruction = 15;
    private const int XstateBv = 512;               // SDM vol. 1, 13.4.2: which components of the area count
    private const byte XsaveX87 = 1, XsaveSse = 2;

    private readonly GuestLinearMemory _linear = new(vcpu, memory);

    /// <summary>How many instructions were finished so far.</summary>
    public long Count { get; private set; }

    /// <summary>
    /// After <see cref="KvmExit.InternalError"/>: true when the instruction is done and the vCPU can run on; else
    /// <paramref name="failure"/> is the
    /// message to end the VM with: the cause, RIP, the bytes and their disassembly.
    /// </summary>
    public bool TryAssist(out string failure)
    {
        KvmRegs regs = vcpu.GetRegs();
        KvmSregs sregs = vcpu.GetSregs();
        Span<byte> bytes = stackalloc byte[MaxInstruction];
        bytes = bytes[..ReadInstruction(regs, sregs, bytes)];
        int bitness = sregs.Cs.L != 0 ? 64 : sregs.Cs.Db != 0 ? 32 : 16;
        Decoder decoder = Decoder.Create(bitness, new ByteArrayCodeReader(bytes.ToArray()), regs.Rip);
        decoder.Decode(out Instruction instruction);

        bool atKernel = sregs.Ss.Dpl == 0;
        if (vcpu.InternalErrorCode == SuberrorEmulation && atKernel && !instruction.IsInvalid && TryExecute(instruction, ref regs, sregs))
        {
            Count++;
            failure = "";
            return true;
        }

        failure = Describe(regs, sregs, bytes, instruction);
        return false;
    }

    private int ReadInstruction(in KvmRegs regs, in KvmSregs sregs, Span<byte> destination)
    {
        int count = _linear.ReadSome(unchecked(sregs.Cs.Base + regs.Rip), destination);
        return count > 0 ? count : vcpu.CopyFailedInstruction(destination);
    }

    private bool TryExecute(in Instruction instruction, ref KvmRegs regs, in KvmSregs sregs)
    {
        ulong next = instruction.NextIP;
        switch (instruction.Mnemonic)
        {
            case Mnemonic.Int3:
                regs.Rip = next;
                vcpu.SetRegs(regs);
                Inject(BreakpointVector, hasErrorCode: false);
                return true;
            case Mnemonic.Clac:
                regs.Rflags &= ~FlagAc;
                break;
            case Mnemonic.Stac:
                regs.Rflags |= FlagAc;
                break;
            case Mnemonic.Popcnt:
                if (!TryPopcnt(instruction, ref regs, sregs))
                {
                    return false;
                }

                break;
            case Mnemonic.Rdtscp:
                ReadTscp(ref regs);
                break;
            case Mnemonic.Xgetbv:
                if (!TryXgetbv(ref regs))
                {
                    return false;
                }

                break;
            default:
                bool? outcome = FpuAssist(instruction, ref regs, sregs);
                if (outcome is null)
                {
                    return true; // An exception was injected; RIP stays.
                }

                if (outcome == false)
                {
                    return false;
                }

                break;
        }

        regs.Rip = next;
        vcpu.SetRegs(regs);
        return true;
    }

    /// <summary>x87/SSE control instructions. True: done; false: not ours or memory missing; null: the guest got an exception.</summary>
    private bool? FpuAssist(in Instruction instruction, ref KvmRegs regs, in KvmSregs sregs)
    {
        const uint mxcsrReserved = 0xffff0000;
        byte[] area = vcpu.GetXsave(); // KVM_SET_FPU leaves MXCSR alone, so the XSAVE area it is.
        Span<byte> fcw = area.AsSpan(0, 2), fsw = area.AsSpan(2, 2), mxcsrField = area.AsSpan(24, 4);
        byte touched = XsaveX87;
        Span<byte> operand = stackalloc byte[4];
        switch (instruction.Mnemonic)
        {
            case Mnemonic.Ldmxcsr:
                if (!TryLoad(instruction, 0, regs, sregs, operand))
                {
                    return false;
                }

                uint mxcsr = BinaryPrimitives.ReadUInt32LittleEndian(operand);
                if ((mxcsr & mxcsrReserved) != 0)
                {
                    Inject(GeneralProtectionVector, hasErrorCode: true);
                    return null;
                }

                BinaryPrimitives.WriteUInt32LittleEndian(mxcsrField, mxcsr);
                touched = XsaveSse;
                break;
            case Mnemonic.Stmxcsr:
                return TryAddress(instruction, 0, regs, sregs, out ulong to) && _linear.TryWrite(to, mxcsrField);
            case Mnemonic.Fldcw:
                if (!TryLoad(instruction, 0, regs, sregs, fcw))
                {
                    return false;
                }

                break;
            case Mnemonic.Fnstsw when instruction.Op0Register == Register.AX:
                regs.Rax = (regs.Rax & ~0xfffful) | BinaryPrimitives.ReadUInt16LittleEndian(fsw);
                return true;
            case Mnemonic.Wait:
                return (fsw[0] & 0x80) == 0; // With an unmasked x87 exception pending (ES) #MF is due: not ours.
            case Mnemonic.Fnclex:
                fsw[0] = 0; // Exception flags, stack fault and summary; busy is bit 15.
                fsw[1] &= 0x7f;
                break;
            case Mnemonic.Emms:
                area[4] = 0; // Abridged tags as in FXSAVE: 0 is empty.
                break;
            default:
                return false;
        }

        area[XstateBv] |= touched;
        vcpu.SetXsave(area);
        return true;
    }

    private bool TryPopcnt(in Instruction instruction, ref KvmRegs regs, in KvmSregs sregs)
    {
        int size = instruction.Op0Register.GetSize();
        ulong source;
        if (instruction.Op1Kind == OpKind.Register)
        {
            if (!GuestRegisters.TryRead(regs, sregs, instruction.Op1Register, out source))
            {
                return false;
            }
        }
        else
        {
            Span<byte> operand = stackalloc byte[8];
            operand.Clear();
            if (!TryLoad(instruction, 1, regs, sregs, operand[..size]))
            {
                return false;
            }

            source = BinaryPrimitives.ReadUInt64LittleEndian(operand);
        }

        regs.Rflags &= ~(FlagCf | FlagPf | FlagAf | FlagZf | FlagSf | FlagOf);
        regs.Rflags |= source == 0 ? FlagZf : 0;
        return GuestRegisters.TryWrite(ref regs, instruction.Op0Register, (ulong)BitOperations.PopCount(source));
    }

    private void ReadTscp(ref KvmRegs regs)
    {
        foreach (KvmMsrEntry msr in vcpu.GetMsrs([MsrTsc, MsrTscAux]))
        {
            if (msr.Index == MsrTsc)
            {
                regs.Rax = (uint)msr.Data;
                regs.Rdx = msr.Data >> 32;
            }
            else
            {
                regs.Rcx = (uint)msr.Data;
            }
        }
    }

    private bool TryXgetbv(ref KvmRegs regs)
    {
        if ((uint)regs.Rcx != 0)
        {
            return false;
        }

        KvmXcrs xcrs = vcpu.GetXcrs();
        for (int i = 0; i < Math.Min(xcrs.NrXcrs, 16u); i++)
        {
            if (xcrs.Xcrs[i].Xcr == 0)
            {
                regs.Rax = (uint)xcrs.Xcrs[i].Value;
                regs.Rdx = xcrs.Xcrs[i].Value >> 32;
                return true;
            }
        }

        return false;
    }

    private bool TryLoad(in Instruction instruction, int operand, in KvmRegs regs, in KvmSregs sregs, Span<byte> destination) =>
        TryAddress(instruction, operand, regs, sregs, out ulong linear) && _linear.TryRead(linear, destination);

    private static bool TryAddress(in Instruction instruction, int operand, in KvmRegs regs, in KvmSregs sregs, out ulong linear)
    {
        KvmRegs general = regs;
        KvmSregs system = sregs;
        return instruction.TryGetVirtualAddress(operand, 0, out linear, (Register register, int _, int _, out ulong value) =>
            GuestRegisters.TryRead(general, system, register, out value));
    }

    private void Inject(byte vector, bool hasErrorCode)
    {
        KvmVcpuEvents events = vcpu.GetEvents();
        events.ExceptionInjected = 1;
        events.ExceptionPending = 0;
        events.ExceptionNr = vector;
        events.ExceptionHasErrorCode = hasErrorCode ? (byte)1 : (byte)0;
        events.ExceptionErrorCode = 0;
        vcpu.SetEvents(events);
    }

    private string Describe(in KvmRegs regs, in KvmSregs sregs, ReadOnlySpan<byte> bytes, in Instruction instruction)
    {
        string what = vcpu.InternalErrorCode switch
        {
            SuberrorEmulation => "KVM cannot emulate an instruction of the guest",
            2 => "KVM met simultaneous exceptions in the guest",
            3 => "KVM failed while delivering an event to the guest",
            4 => "KVM met an exit it did not expect",
            uint other => $"KVM internal error {other}",
        };
        string where = $"vCPU {vcpu.Id}, CPL {sregs.Ss.Dpl}, RIP 0x{regs.Rip:x}";
        if (bytes.IsEmpty)
        {
            return $"{what} ({where}, bytes at RIP not readable).";
        }

        string text = instruction.IsInvalid ? "(not an instruction)" : instruction.ToString();
        return $"{what} ({where}): {text} "
            + $"[{Convert.ToHexStringLower(bytes[..(instruction.IsInvalid ? bytes.Length : instruction.Length)])}], bytes at RIP "
            + $"{Convert.ToHexStringLower(bytes)}.";
    }
}
