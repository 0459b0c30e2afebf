using Iced.Intel;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm;

/// <summary>Registers by the disassembler's names.</summary>
internal static class GuestRegisters
{
    /// <summary>General registers of any width, and segment bases; false for others.</summary>
    internal static bool TryRead(in KvmRegs regs, in KvmSregs sregs, Register register, out ulong value)
    {
        switch (register)
        {
            case Register.CS: value = sregs.Cs.Base; return true;
            case Register.DS: value = sregs.Ds.Base; return true;
            case Register.ES: value = sregs.Es.Base; return true;
            case Register.FS: value = sregs.Fs.Base; return true;
            case Register.GS: value = sregs.Gs.Base; return true;
            case Register.SS: value = sregs.Ss.Base; return true;
            case Register.RIP: value = regs.Rip; return true;
            case Register.EIP: value = (uint)regs.Rip; return true;
        }

        value = 0;
        if (!register.IsGPR() || register.GetSize() == 1)
        {
            return false;
        }

        ulong full = register.GetFullRegister() switch
        {
            Register.RAX => regs.Rax,
            Register.RBX => regs.Rbx,
            Register.RCX => regs.Rcx,
            Register.RDX => regs.Rdx,
            Register.RSI => regs.Rsi,
            Register.RDI => regs.Rdi,
            Register.RSP => regs.Rsp,
            Register.RBP => regs.Rbp,
            Register.R8 => regs.R8,
            Register.R9 => regs.R9,
            Register.R10 => regs.R10,
            Register.R11 => regs.R11,
            Register.R12 => regs.R12,
            Register.R13 => regs.R13,
            Register.R14 => regs.R14,
            _ => regs.R15,
        };
        value = register.GetSize() switch { 2 => (ushort)full, 4 => (uint)full, _ => full };
        return true;
    }

    /// <summary>Writes a 16, 32 (zero-extended) or 64-bit general register.</summary>
    internal static bool TryWrite(ref KvmRegs regs, Register register, ulong value)
    {
        if (!register.IsGPR() || register.GetSize() == 1)
        {
            return false;
        }

        switch (register.GetFullRegister())
        {
            case Register.RAX: Merge(ref regs.Rax, register, value); break;
            case Register.RBX: Merge(ref regs.Rbx, register, value); break;
            case Register.RCX: Merge(ref regs.Rcx, register, value); break;
            case Register.RDX: Merge(ref regs.Rdx, register, value); break;
            case Register.RSI: Merge(ref regs.Rsi, register, value); break;
            case Register.RDI: Merge(ref regs.Rdi, register, value); break;
            case Register.RSP: Merge(ref regs.Rsp, register, value); break;
            case Register.RBP: Merge(ref regs.Rbp, register, value); break;
            case Register.R8: Merge(ref regs.R8, register, value); break;
            case Register.R9: Merge(ref regs.R9, register, value); break;
            case Register.R10: Merge(ref regs.R10, register, value); break;
            case Register.R11: Merge(ref regs.R11, register, value); break;
            case Register.R12: Merge(ref regs.R12, register, value); break;
            case Register.R13: Merge(ref regs.R13, register, value); break;
            case Register.R14: Merge(ref regs.R14, register, value); break;
            default: Merge(ref regs.R15, register, value); break;
        }

        return true;
    }

    private static void Merge(ref ulong full, Register register, ulong value) =>
        full = register.GetSize() switch { 2 => (full & ~0xfffful) | (ushort)value, 4 => (uint)value, _ => value };
}
