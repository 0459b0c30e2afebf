using Vmm.Interop;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm.Tests;

/// <summary>
/// A VM of one vCPU and 2 MiB of RAM. <see cref="StartRealMode"/> runs code at CPL 0; <see cref="StartUser"/> runs it in 64-bit mode at CPL
/// 3,
/// natively on every KVM, with port I/O allowed (IOPL 3) and the first 2 MiB plus a window at 1 GiB (no RAM: MMIO) mapped one to one.
/// </summary>
internal sealed class TinyVm : IDisposable
{
    internal const ulong RamBytes = 2 << 20;
    internal const ulong CodeAt = 0x10000;
    internal const ulong MmioWindow = 1UL << 30;
    private const ulong Pml4 = 0x1000, Pdpt = 0x2000, PageDirectory = 0x3000, MmioDirectory = 0x4000, Gdt = 0x5000;

    internal TinyVm(KvmSystem system, bool irqChip = false, MemorySlotFlags flags = MemorySlotFlags.None, Action<KvmVm>? prepare = null,
        AnonymousMapping? memory = null)
    {
        Memory = memory ?? new AnonymousMapping(RamBytes);
        Vm = system.CreateVm();
        prepare?.Invoke(Vm);
        Vm.SetTssAddress(0xfffbd000);
        if (irqChip)
        {
            Vm.CreateIrqChip();
        }

        Vm.SetMemorySlot(0, 0, RamBytes, Memory.Address, flags);
        Vcpu = Vm.CreateVcpu(0);
        Vcpu.SetCpuid(system.GetSupportedCpuid());
    }

    internal AnonymousMapping Memory { get; }

    internal KvmVm Vm { get; }

    internal KvmVcpu Vcpu { get; }

    internal void StartRealMode(params byte[] code)
    {
        code.CopyTo(Memory.Slice(0x1000, code.Length));
        KvmSregs sregs = Vcpu.GetSregs();
        sregs.Cs.Base = 0;
        sregs.Cs.Selector = 0;
        Vcpu.SetSregs(sregs);
        Vcpu.SetRegs(new KvmRegs { Rip = 0x1000, Rflags = 2, Rsp = 0x8000 });
    }

    internal void StartKernel(params byte[] code) => StartLong(0, code);

    internal void StartUser(params byte[] code) => StartLong(3, code);

    private void StartLong(byte cpl, byte[] code)
    {
        const ulong presentWriteUser = 7, large = 0x80;
        Write(Pml4, Pdpt | presentWriteUser);
        Write(Pdpt, PageDirectory | presentWriteUser);
        Write(Pdpt + 8, MmioDirectory | presentWriteUser);
        Write(PageDirectory, 0 | presentWriteUser | large);
        Write(MmioDirectory, MmioWindow | presentWriteUser | large);
        Write(Gdt + 0x10, 0x00af9b000000ffff);
        Write(Gdt + 0x18, 0x00cf93000000ffff);
        Write(Gdt + 0x28, 0x00cff3000000ffff);
        Write(Gdt + 0x30, 0x00affb000000ffff);
        code.CopyTo(Memory.Slice(CodeAt, code.Length));

        KvmSregs sregs = Vcpu.GetSregs();
        sregs.Cr0 = 0x80050033; // PG AM WP NE ET MP PE
        sregs.Cr3 = Pml4;
        sregs.Cr4 = 0x620;      // PAE OSFXSR OSXMMEXCPT
        sregs.Efer = 0xd01;     // NXE LMA LME SCE
        sregs.Gdt.Base = Gdt;
        sregs.Gdt.Limit = 0x37;
        sregs.Cs = Segment((ushort)(cpl == 3 ? 0x33 : 0x10), 0xb, cpl) with { L = 1, Db = 0 };
        sregs.Ds = sregs.Es = sregs.Fs = sregs.Gs = sregs.Ss = Segment((ushort)(cpl == 3 ? 0x2b : 0x18), 3, cpl);
        Vcpu.SetSregs(sregs);
        Vcpu.SetRegs(new KvmRegs { Rip = CodeAt, Rflags = cpl == 3 ? 0x3002ul : 2, Rsp = 0x80000 });
    }

    /// <summary>Runs until the guest writes the port; anything but an interruption in between fails the test.</summary>
    internal void RunToPort(ushort port)
    {
        while (true)
        {
            KvmExit exit = Vcpu.Run();
            if (exit == KvmExit.Interrupted)
            {
                continue;
            }

            Assert.Equal(KvmExit.Io, exit);
            Assert.Equal(port, Vcpu.IoPort);
            return;
        }
    }

    internal void Write(ulong at, ulong value) => BitConverter.TryWriteBytes(Memory.Slice(at, 8), value);

    internal ulong Read(ulong at) => BitConverter.ToUInt64(Memory.Slice(at, 8));

    public void Dispose()
    {
        Vcpu.Dispose();
        Vm.Dispose();
        Memory.Dispose();
    }

    private static KvmSegment Segment(ushort selector, byte type, byte dpl) =>
        new() { Selector = selector, Type = type, Dpl = dpl, Base = 0, Limit = 0xffffffff, Present = 1, S = 1, G = 1, Db = 1 };
}
