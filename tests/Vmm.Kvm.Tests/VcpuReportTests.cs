using System.Buffers.Binary;
using Vmm.Interop.Kvm;

namespace Vmm.Kvm.Tests;

/// <summary>What is said of a crashed vCPU, without KVM: registers in, lines out.</summary>
public sealed class VcpuReportTests
{
    private const ulong Code = 0xffff_ffff_8100_0000, Stack = 0xffff_c900_0000_1000, Idt = 0xffff_fe00_0000_0000;

    private readonly Dictionary<ulong, byte> _memory = [];

    [Fact]
    public void Registers_events_code_gates_and_stack_are_told()
    {
        Put(Code, [0x0f, 0x0b, 0xf4, 0x31, 0xc0]); // ud2; hlt; xor eax,eax
        Put(Stack, Words(0x1111, 0x2222));
        Gate(14, 0x10, 0xffff_ffff_81a0_0e10, ist: 0, present: true);
        Gate(8, 0x10, 0xffff_ffff_81a0_0f20, ist: 1, present: true);
        Gate(13, 0x10, 0, ist: 0, present: false);
        KvmRegs regs = new() { Rip = Code, Rsp = Stack, Rflags = 0x10046, Rbx = 0xabcd };
        KvmSregs sregs = Long();
        sregs.Cr2 = 0xdead_beef;
        KvmVcpuEvents events =
            new() { ExceptionInjected = 1, ExceptionNr = 14, ExceptionHasErrorCode = 1, ExceptionErrorCode = 2, NmiMasked = 1 };

        string[] lines = [.. VcpuReport.Full(regs, sregs, events, 0, Read)];

        Assert.Equal("64-bit, CPL 0, runnable", lines[0]);
        Assert.Contains(lines, l => l.StartsWith("rip ffffffff81000000 rsp ffffc90000001000 rflags 00010046", StringComparison.Ordinal));
        Assert.Contains(lines, l => l.Contains("rbx 000000000000abcd", StringComparison.Ordinal));
        Assert.Contains(lines, l => l.Contains("cr2 00000000deadbeef", StringComparison.Ordinal));
        Assert.Contains("events: #PF under way, error code 0x2; NMIs masked", lines);
        Assert.Contains("code: ffffffff81000000 ud2 [0f0b]", lines);
        Assert.Contains("code: ffffffff81000002 hlt [f4]", lines);
        string gates = Assert.Single(lines, l => l.StartsWith("idt: ", StringComparison.Ordinal));
        Assert.Equal(
            "idt: NMI not readable, #UD not readable, #DF 0010:ffffffff81a00f20 ist 1, #GP not present, #PF 0010:ffffffff81a00e10", gates);
        Assert.Contains("stack: 0000000000001111 0000000000002222", lines);
    }

    [Fact]
    public void What_cannot_be_read_is_said()
    {
        KvmSregs sregs = Long();
        sregs.Idt.Limit = 0;
        string[] lines = [.. VcpuReport.Full(new KvmRegs { Rip = Code, Rsp = Stack }, sregs, default, 3, Read)];
        Assert.Contains("64-bit, CPL 0, halted", lines);
        Assert.Contains("events: none", lines);
        Assert.Contains("code: not readable at rip", lines);
        Assert.Contains("stack: not readable at rsp", lines);
        Assert.Contains(lines, l => l.StartsWith("idt: NMI beyond the limit", StringComparison.Ordinal));
    }

    [Fact]
    public void A_vcpu_that_KVM_reset_is_said_to_have_lost_its_registers()
    {
        KvmRegs regs = new() { Rip = 0xfff0, Rflags = 2 };
        KvmSregs sregs = new() { Cr0 = 0x6000_0010 };
        sregs.Cs.Base = 0xffff_0000;
        Assert.True(VcpuReport.IsReset(regs, sregs));
        Assert.Contains("registers are lost", Assert.Single(VcpuReport.Full(regs, sregs, default, 0, Read)), StringComparison.Ordinal);
        sregs.Cr0 |= 1;
        Assert.False(VcpuReport.IsReset(regs, sregs));
    }

    [Fact]
    public void Other_vcpus_are_told_in_a_line()
    {
        Put(Code, [0xeb, 0xfe]);
        string line = VcpuReport.Brief(new KvmRegs { Rip = Code, Rsp = Stack }, Long(), 0, Read);
        Assert.StartsWith("64-bit, CPL 0, runnable, rip ffffffff81000000 (jmp ", line, StringComparison.Ordinal);
        Assert.Equal("waits for SIPI", VcpuReport.Brief(default, Long(), 2, Read));
    }

    /// <summary>Registers belong to the guest: whatever is in them, the report is lines without an exception, and not many.</summary>
    [Fact]
    [Trait("Kind", "fuzz")]
    public void Any_state_gives_a_short_report()
    {
        int iterations = int.TryParse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS"), out int asked) ? asked : 5000;
        Random random = new(20261126);
        Span<byte> raw = stackalloc byte[System.Runtime.CompilerServices.Unsafe.SizeOf<KvmSregs>()];
        for (int i = 0; i < iterations; i++)
        {
            random.NextBytes(raw);
            KvmSregs sregs = System.Runtime.InteropServices.MemoryMarshal.Read<KvmSregs>(raw);
            random.NextBytes(raw);
            KvmRegs regs = System.Runtime.InteropServices.MemoryMarshal.Read<KvmRegs>(raw);
            random.NextBytes(raw);
            KvmVcpuEvents events = System.Runtime.InteropServices.MemoryMarshal.Read<KvmVcpuEvents>(raw);
            byte[] content = new byte[random.Next(64)];
            random.NextBytes(content);
            int Some(ulong linear, Span<byte> to)
            {
                int count = Math.Min(to.Length, content.Length);
                content.AsSpan(0, count).CopyTo(to);
                return count;
            }

            IReadOnlyList<string> lines = VcpuReport.Full(regs, sregs, events, (uint)random.Next(8), Some);
            Assert.InRange(lines.Count, 1, 20);
            Assert.All(lines, l => Assert.InRange(l.Length, 1, 600));
            Assert.InRange(VcpuReport.Brief(regs, sregs, (uint)random.Next(8), Some).Length, 1, 600);
        }
    }

    private static KvmSregs Long()
    {
        KvmSregs sregs = new() { Cr0 = 0x8005_0033, Efer = 0xd01 };
        sregs.Cs.L = 1;
        sregs.Idt.Base = Idt;
        sregs.Idt.Limit = 0xfff;
        return sregs;
    }

    private static byte[] Words(params ulong[] words)
    {
        byte[] bytes = new byte[words.Length * 8];
        for (int i = 0; i < words.Length; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(i * 8), words[i]);
        }

        return bytes;
    }

    private void Gate(byte vector, ushort selector, ulong target, byte ist, bool present) => Put(Idt + (vector * 16ul), Words(
        (target & 0xffff) | ((ulong)selector << 16) | ((ulong)ist << 32) | ((present ? 0x8eul : 0x0e) << 40)
            | (((target >> 16) & 0xffff) << 48),
        target >> 32));

    private void Put(ulong address, byte[] bytes)
    {
        for (int i = 0; i < bytes.Length; i++)
        {
            _memory[address + (ulong)i] = bytes[i];
        }
    }

    private int Read(ulong linear, Span<byte> destination)
    {
        int count = 0;
        while (count < destination.Length && _memory.TryGetValue(linear + (ulong)count, out byte value))
        {
            destination[count++] = value;
        }

        return count;
    }
}
