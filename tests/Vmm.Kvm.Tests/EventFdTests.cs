using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Testing;

namespace Vmm.Kvm.Tests;

[Trait("Tier", "kvm")]
public sealed class EventFdTests : IDisposable
{
    private const byte Vector = 0x31;
    private readonly KvmSystem _system = KvmSystem.Open();

    public void Dispose() => _system.Dispose();

    [KvmFact]
    public void Mmio_write_that_matches_signals_and_does_not_exit()
    {
        using TinyVm tiny = new(_system);
        using EventFd doorbell = new();
        IoEventAddress at = new(TinyVm.MmioWindow, 4, DataMatch: 7);
        tiny.Vm.AssignIoEventFd(doorbell, at);
        // mov dword [0x40000000],7 twice; mov dword [0x40000000],8; out 0x80,al; mov dword [0x40000000],7
        byte[] ring7 = [0xc7, 0x04, 0x25, 0, 0, 0, 0x40, 7, 0, 0, 0], ring8 = [0xc7, 0x04, 0x25, 0, 0, 0, 0x40, 8, 0, 0, 0];
        tiny.StartUser([.. ring7, .. ring7, .. ring8, 0xe6, 0x80, .. ring7]);

        Assert.Equal(KvmExit.Mmio, tiny.Vcpu.Run());
        Assert.Equal(8u, BitConverter.ToUInt32(tiny.Vcpu.MmioData));
        Assert.True(doorbell.TryTake(out ulong rings));
        Assert.Equal(2ul, rings);

        tiny.RunToPort(0x80);
        tiny.Vm.DeassignIoEventFd(doorbell, at);
        Assert.Equal(KvmExit.Mmio, tiny.Vcpu.Run());
        Assert.Equal(7u, BitConverter.ToUInt32(tiny.Vcpu.MmioData));
        Assert.False(doorbell.TryTake(out _));
    }

    [KvmFact]
    public void Port_write_signals()
    {
        using TinyVm tiny = new(_system);
        using EventFd doorbell = new();
        tiny.Vm.AssignIoEventFd(doorbell, new IoEventAddress(0x90, 1, IsPort: true));
        tiny.StartUser(0xe6, 0x90, 0xe6, 0x80); // out 0x90,al; out 0x80,al
        tiny.RunToPort(0x80);
        Assert.True(doorbell.TryTake(out ulong rings));
        Assert.Equal(1ul, rings);
    }

    [KvmFact]
    public void Same_doorbell_twice_is_refused()
    {
        using TinyVm tiny = new(_system);
        using EventFd one = new(), two = new();
        IoEventAddress at = new(TinyVm.MmioWindow, 4);
        tiny.Vm.AssignIoEventFd(one, at);
        Assert.Equal(17, Assert.Throws<KernelException>(() => tiny.Vm.AssignIoEventFd(two, at)).Errno); // EEXIST
    }

    [KvmFact]
    public void Interrupt_event_wakes_a_halted_guest_through_its_MSI_route()
    {
        using TinyVm tiny = new(_system, irqChip: true);
        using EventFd interrupt = new();
        KvmGsiRouting routing = new(tiny.Vm);
        routing.AddPcDefaults();
        routing.SetMsi(24, 0xfee00000, Vector);
        routing.Commit();
        tiny.Vm.AssignIrqFd(interrupt, 24);
        EnableApic(tiny.Vcpu);
        tiny.Write(Vector * 4, 0x1100); // real-mode vector: 0000:1100
        new byte[] { 0xe6, 0x81, 0xf4 }.CopyTo(tiny.Memory.Slice(0x1100, 3)); // handler: out 0x81,al; hlt
        tiny.StartRealMode(0xe6, 0x80, 0xfb, 0xf4, 0xeb, 0xfd); // out 0x80,al; sti; l: hlt; jmp l
        tiny.RunToPort(0x80);

        using Timer signal = new(_ => interrupt.Signal(), null, 20, Timeout.Infinite);
        bool late = false;
        using Timer watchdog = new(_ =>
        {
            late = true;
            tiny.Vcpu.Kick();
        }, null, 20_000, 1000);
        KvmExit exit;
        do
        {
            exit = tiny.Vcpu.Run();
        }
        while (exit == KvmExit.Interrupted && !Volatile.Read(ref late));
        Assert.False(late, "the halted guest was not woken");
        Assert.Equal(KvmExit.Io, exit);
        Assert.Equal(0x81, tiny.Vcpu.IoPort);
    }

    [KvmFact]
    public void Signalled_MSI_reaches_the_local_APIC_and_a_deassigned_event_does_not()
    {
        using TinyVm tiny = new(_system, irqChip: true);
        using EventFd interrupt = new();
        KvmGsiRouting routing = new(tiny.Vm);
        routing.SetMsi(5, 0xfee00000, Vector);
        routing.SetMsi(5, 0xfee00000, Vector + 1);
        Assert.Equal(1, routing.Count);
        routing.Commit();
        EnableApic(tiny.Vcpu);
        tiny.Vm.AssignIrqFd(interrupt, 5);
        tiny.Vm.DeassignIrqFd(interrupt, 5);
        interrupt.Signal();
        Assert.False(Requested(tiny.Vcpu, Vector + 1));
        Assert.True(tiny.Vm.SignalMsi(0xfee00000, Vector));
        Assert.True(Requested(tiny.Vcpu, Vector));
    }

    private static void EnableApic(KvmVcpu vcpu)
    {
        KvmLapicState lapic = vcpu.GetLapic();
        lapic.Regs[0xf0] = 0xff;
        lapic.Regs[0xf1] = 1; // spurious vector register: software enable
        vcpu.SetLapic(lapic);
    }

    private static bool Requested(KvmVcpu vcpu, int vector)
    {
        KvmLapicState lapic = vcpu.GetLapic();
        return (lapic.Regs[0x200 + (vector / 32 * 0x10) + (vector % 32 / 8)] & (1 << (vector % 8))) != 0; // IRR
    }
}
