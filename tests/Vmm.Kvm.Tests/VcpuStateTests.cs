using System.Text.Json;
using Vmm.Interop.Kvm;
using Vmm.Testing;

namespace Vmm.Kvm.Tests;

[Trait("Tier", "kvm")]
public sealed class VcpuStateTests : IDisposable
{
    private const uint Factor = 0x5851f42d;
    private const ulong StopAt = 0x20010;
    private const ulong Seed = 0x1122334455667788;
    private readonly KvmSystem _system = KvmSystem.Open();

    public void Dispose() => _system.Dispose();

    // xor ecx,ecx; mov rax,Seed; movq xmm5,rax; out 0x79,al
    // l: imul rax,rax,Factor; inc rax; inc rcx; cmp byte [StopAt],0; je l
    // mov [0x20000],rax; movq [0x20008],xmm5; mov [0x20018],rcx; out 0x80,al
    private static readonly byte[] Generator =
    [
        0x31, 0xc9, 0x48, 0xb8, .. BitConverter.GetBytes(Seed), 0x66, 0x48, 0x0f, 0x6e, 0xe8, 0xe6, 0x79,
        0x48, 0x69, 0xc0, .. BitConverter.GetBytes(Factor), 0x48, 0xff, 0xc0, 0x48, 0xff, 0xc1, 0x80, 0x3c, 0x25, 0x10, 0, 2, 0, 0, 0x74,
        0xe9,
        0x48, 0x89, 0x04, 0x25, 0, 0, 2, 0, 0x66, 0x0f, 0xd6, 0x2c, 0x25, 8, 0, 2, 0, 0x48, 0x89, 0x0c, 0x25, 0x18, 0, 2, 0, 0xe6, 0x80,
    ];

    [KvmFact]
    public void A_running_guest_saved_twice_goes_on_in_another_VM_and_ends_right()
    {
        TinyVm tiny = new(_system, irqChip: true);
        try
        {
            tiny.StartUser(Generator);
            tiny.RunToPort(0x79);
            ulong before = 0;
            using ManualResetEvent done = new(initialState: false);
            for (int hop = 0; hop < 2; hop++)
            {
                // The guest would loop for ever: only kicks bring it out, and it has to have made progress by then.
                using (Timer kick = new(_ => tiny.Vcpu.Kick(), null, 15, 15))
                {
                    do
                    {
                        Assert.Equal(KvmExit.Interrupted, tiny.Vcpu.Run());
                    }
                    while (tiny.Vcpu.GetRegs().Rcx <= before);
                    kick.Dispose(done);
                    done.WaitOne();
                    done.Reset();
                }

                ulong rounds = tiny.Vcpu.GetRegs().Rcx;
                Assert.True(rounds > before, "the guest made no progress before it was saved");
                before = rounds;
                KvmVcpuStateV1 state =
                    JsonSerializer.Deserialize<KvmVcpuStateV1>(JsonSerializer.Serialize(KvmVcpuStateV1.Capture(tiny.Vcpu)))!;
                TinyVm second = new(_system, irqChip: true);
                tiny.Memory.Slice(0, (int)TinyVm.RamBytes).CopyTo(second.Memory.Slice(0, (int)TinyVm.RamBytes));
                tiny.Dispose();
                tiny = second;
                Assert.Empty(state.Restore(tiny.Vcpu));
                Assert.Equal(rounds, tiny.Vcpu.GetRegs().Rcx);
            }

            tiny.Write(StopAt, 1);
            tiny.RunToPort(0x80);
            ulong total = tiny.Read(0x20018);
            Assert.True(total > before);
            Assert.Equal(Generate(total), tiny.Read(0x20000));
            Assert.Equal(Seed, tiny.Read(0x20008));
        }
        finally
        {
            tiny.Dispose();
        }
    }

    [KvmFact]
    public void Captured_again_after_restore_the_state_is_the_same()
    {
        using TinyVm first = new(_system, irqChip: true), second = new(_system, irqChip: true);
        first.StartUser(0xe6, 0x80);
        first.RunToPort(0x80);
        Assert.Equal(KvmExit.Interrupted, first.Vcpu.CompletePendingIo());
        KvmDebugregs debug = first.Vcpu.GetDebugRegs();
        debug.Db[0] = 0x12345678;
        first.Vcpu.SetDebugRegs(debug);
        const uint lstar = 0xc0000082;
        Assert.Equal(1, first.Vcpu.SetMsrs([new KvmMsrEntry { Index = lstar, Data = 0xffffffff81000000 }]));

        KvmVcpuStateV1 saved = KvmVcpuStateV1.Capture(first.Vcpu);
        Assert.Empty(saved.Restore(second.Vcpu));
        KvmVcpuStateV1 again = KvmVcpuStateV1.Capture(second.Vcpu);
        Assert.Equal(saved.Regs, again.Regs);
        Assert.Equal(saved.Sregs, again.Sregs);
        Assert.Equal(saved.Xsave, again.Xsave);
        Assert.Equal(saved.Xcrs, again.Xcrs);
        Assert.Equal(saved.DebugRegs, again.DebugRegs);
        Assert.Equal(saved.Events, again.Events);
        Assert.Equal(saved.MpState, again.MpState);
        Assert.Contains(new MsrValue(lstar, 0xffffffff81000000), again.Msrs);
        Assert.Equal(0x12345678ul, second.Vcpu.GetDebugRegs().Db[0]);
    }

    [KvmFact]
    public void Refused_MSRs_are_named_and_the_others_are_still_read()
    {
        using TinyVm tiny = new(_system);
        List<uint> refused = [];
        KvmMsrEntry[] read = tiny.Vcpu.GetMsrs([0xc0000081, 0xdeadbeef, 0xc0000082], refused);
        Assert.Equal([0xdeadbeefu], refused);
        Assert.Equal([0xc0000081u, 0xc0000082u], read.Select(m => m.Index));
    }

    [KvmFact]
    public void State_with_a_part_of_the_wrong_length_is_refused_by_name()
    {
        using TinyVm tiny = new(_system, irqChip: true);
        KvmVcpuStateV1 state = KvmVcpuStateV1.Capture(tiny.Vcpu);
        Assert.Contains(
            "Regs",
            Assert.Throws<InvalidDataException>(() => (state with { Regs = new byte[3] }).Restore(tiny.Vcpu)).Message,
            StringComparison.Ordinal);
        Assert.Contains(
            "Xsave",
            Assert.Throws<InvalidDataException>(() => (state with { Xsave = [] }).Restore(tiny.Vcpu)).Message,
            StringComparison.Ordinal);
        Assert.Contains(
            "interrupt controller",
            Assert.Throws<InvalidDataException>(() => (state with { Lapic = null }).Restore(tiny.Vcpu)).Message,
            StringComparison.Ordinal);
    }

    /// <summary>x -> Factor x + 1, applied to the seed so many times, by squaring the map.</summary>
    private static ulong Generate(ulong times)
    {
        ulong x = Seed, factor = Factor, offset = 1;
        for (; times != 0; times >>= 1)
        {
            unchecked
            {
                if ((times & 1) != 0)
                {
                    x = (x * factor) + offset;
                }

                offset = (factor * offset) + offset;
                factor *= factor;
            }
        }

        return x;
    }
}
