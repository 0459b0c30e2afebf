using Vmm.Interop;
using Vmm.Testing;

namespace Vmm.Kvm.Tests;

/// <summary>
/// On an emulating KVM the instructions take the assist; on hardware the processor does them. The guest must see the same either way.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class EmulationAssistTests : IDisposable
{
    private const int Data = 0x20000;
    private readonly KvmSystem _system = KvmSystem.Open();

    public void Dispose() => _system.Dispose();

    [KvmFact]
    public void Popcnt_of_register_and_memory_counts_and_sets_flags()
    {
        using TinyVm tiny = new(_system);
        tiny.Write(Data, 0xff00ff00ff00ff01);
        // mov eax,0x1f; popcnt rbx,rax; popcnt ecx,[0x20000]; xor eax,eax; popcnt rdx,rax; setz al; out 0x80,al
        RunKernel(tiny,
        [
            0xb8, 0x1f, 0, 0, 0, 0xf3, 0x48, 0x0f, 0xb8, 0xd8, 0xf3, 0x0f, 0xb8, 0x0c, 0x25, 0, 0, 2, 0, 0x31, 0xc0, 0xf3, 0x48, 0x0f, 0xb8,
            0xd0, 0x0f, 0x94, 0xc0, 0xe6, 0x80
        ]);
        Assert.Equal(5ul, tiny.Vcpu.GetRegs().Rbx);
        Assert.Equal(17ul, tiny.Vcpu.GetRegs().Rcx);
        Assert.Equal(0ul, tiny.Vcpu.GetRegs().Rdx);
        Assert.Equal(1, tiny.Vcpu.IoData[0]);
    }

    [KvmFact]
    public void Ldmxcsr_stmxcsr_and_fldcw_move_the_control_words()
    {
        using TinyVm tiny = new(_system);
        tiny.Write(Data, 0x5f80);
        tiny.Write(Data + 16, 0x0f7f);
        // ldmxcsr [0x20000]; stmxcsr [0x20008]; fldcw [0x20010]; fwait; fnclex; fnstcw [0x20018]; out 0x80,al
        RunKernel(tiny,
        [
            0x0f, 0xae, 0x14, 0x25, 0, 0, 2, 0, 0x0f, 0xae, 0x1c, 0x25, 8, 0, 2, 0, 0xd9, 0x2c, 0x25, 0x10, 0, 2, 0, 0x9b, 0xdb, 0xe2, 0xd9,
            0x3c, 0x25, 0x18, 0, 2, 0, 0xe6, 0x80
        ]);
        Assert.Equal(0x5f80ul, tiny.Read(Data + 8));
        Assert.Equal(0x0f7ful, tiny.Read(Data + 24) & 0xffff);
    }

    [KvmFact]
    public void Int3_goes_through_the_guests_IDT_and_returns_behind_it()
    {
        using TinyVm tiny = new(_system);
        const ulong idt = 0x6000, handler = 0x11000;
        tiny.Write(idt + (3 * 16), (handler & 0xffff) | (0x10ul << 16) | (0x8e00ul << 32) | (handler >> 16 << 48));
        tiny.Write(idt + (3 * 16) + 8, 0);
        new byte[] { 0xb3, 7, 0x48, 0xcf }.CopyTo(tiny.Memory.Slice(handler, 4)); // mov bl,7; iretq
        EmulationAssist assist = RunKernel(tiny, [0x31, 0xdb, 0xcc, 0xe6, 0x80], vcpu =>  // xor ebx,ebx; int3; out 0x80,al
        {
            Interop.Kvm.KvmSregs sregs = vcpu.GetSregs();
            sregs.Idt.Base = idt;
            sregs.Idt.Limit = 0xff;
            vcpu.SetSregs(sregs);
        });
        Assert.Equal(7ul, tiny.Vcpu.GetRegs().Rbx);
        Assert.Equal(KvmKindProbe.Detect(_system) == KvmKind.Emulating ? 1 : 0, assist.Count);
    }

    [KvmFact]
    public void Stac_and_clac_change_AC()
    {
        using TinyVm tiny = new(_system);
        // stac; pushfq; pop rbx; clac; pushfq; pop rcx; out 0x80,al
        RunKernel(tiny, [0x0f, 0x01, 0xcb, 0x9c, 0x5b, 0x0f, 0x01, 0xca, 0x9c, 0x59, 0xe6, 0x80]);
        Assert.Equal(1ul << 18, tiny.Vcpu.GetRegs().Rbx & (1 << 18));
        Assert.Equal(0ul, tiny.Vcpu.GetRegs().Rcx & (1 << 18));
    }

    [KvmFact(OnlyEmulating = true)]
    public void Anything_else_is_reported_with_RIP_bytes_and_disassembly()
    {
        using TinyVm tiny = new(_system);
        tiny.StartKernel(0x66, 0x0f, 0xef, 0xc1, 0xe6, 0x80); // pxor xmm0,xmm1
        Assert.Equal(KvmExit.InternalError, tiny.Vcpu.Run());
        EmulationAssist assist = new(tiny.Vcpu, new Ram(tiny.Memory));
        Assert.False(assist.TryAssist(out string failure));
        Assert.Contains("RIP 0x10000", failure, StringComparison.Ordinal);
        Assert.Contains("pxor", failure, StringComparison.Ordinal);
        Assert.Contains("660fefc1", failure, StringComparison.Ordinal);
    }

    private static EmulationAssist RunKernel(TinyVm tiny, byte[] code, Action<KvmVcpu>? prepare = null)
    {
        tiny.StartKernel(code);
        prepare?.Invoke(tiny.Vcpu);
        EmulationAssist assist = new(tiny.Vcpu, new Ram(tiny.Memory));
        for (int exits = 0; exits < 1000; exits++)
        {
            KvmExit exit = tiny.Vcpu.Run();
            if (exit == KvmExit.InternalError)
            {
                Assert.True(assist.TryAssist(out string failure), failure);
                continue;
            }

            if (exit != KvmExit.Interrupted)
            {
                Assert.Equal(KvmExit.Io, exit);
                Assert.Equal(0x80, tiny.Vcpu.IoPort);
                return assist;
            }
        }

        throw new InvalidOperationException("the guest did not reach its port write");
    }

    private sealed class Ram(AnonymousMapping memory) : IGuestPhysicalMemory
    {
        public bool TryRead(ulong guestPhysical, Span<byte> destination)
        {
            if (guestPhysical >= memory.Length || (ulong)destination.Length > memory.Length - guestPhysical)
            {
                return false;
            }

            memory.Slice(guestPhysical, destination.Length).CopyTo(destination);
            return true;
        }

        public bool TryWrite(ulong guestPhysical, ReadOnlySpan<byte> source)
        {
            if (guestPhysical >= memory.Length || (ulong)source.Length > memory.Length - guestPhysical)
            {
                return false;
            }

            source.CopyTo(memory.Slice(guestPhysical, source.Length));
            return true;
        }
    }
}
