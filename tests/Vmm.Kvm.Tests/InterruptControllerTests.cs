using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Testing;

namespace Vmm.Kvm.Tests;

/// <summary>State of the in-kernel controllers, the timer and the clock moves from one VM into another.</summary>
[Trait("Tier", "kvm")]
public sealed class InterruptControllerTests : IDisposable
{
    // struct kvm_ioapic_state: base, ioregsel, id, irr, pad, redirtbl[24]
    private const int IoApicIrr = 16, IoApicTable = 24;
    private const int PicMask = 2; // struct kvm_pic_state: last_irr, irr, imr, …

    private readonly KvmSystem _system = KvmSystem.Open();

    public void Dispose() => _system.Dispose();

    [KvmFact]
    public void Redirection_entries_of_the_io_apic_move_to_another_vm()
    {
        using TinyVm from = new(_system, irqChip: true), to = new(_system, irqChip: true);
        KvmIrqchip state = from.Vm.GetIrqChip(IrqChip.IoApic);
        const ulong entry = 0x1_0000 | 0x55; // masked, edge, vector 0x55
        BinaryPrimitives.WriteUInt64LittleEndian(Bytes(ref state)[(IoApicTable + (8 * 5))..], entry);
        from.Vm.SetIrqChip(state);
        KvmIrqchip saved = from.Vm.GetIrqChip(IrqChip.IoApic);
        to.Vm.SetIrqChip(saved);
        KvmIrqchip arrived = to.Vm.GetIrqChip(IrqChip.IoApic);
        Assert.Equal(entry, BinaryPrimitives.ReadUInt64LittleEndian(Bytes(ref arrived)[(IoApicTable + (8 * 5))..]));
        Assert.True(Bytes(ref saved).SequenceEqual(Bytes(ref arrived)));
    }

    [KvmFact]
    public void Masks_of_both_pics_move_to_another_vm()
    {
        using TinyVm from = new(_system, irqChip: true), to = new(_system, irqChip: true);
        foreach ((IrqChip chip, byte mask) in new[] { (IrqChip.PicMaster, (byte)0xA5), (IrqChip.PicSlave, (byte)0x5A) })
        {
            KvmIrqchip state = from.Vm.GetIrqChip(chip);
            Bytes(ref state)[PicMask] = mask;
            from.Vm.SetIrqChip(state);
            to.Vm.SetIrqChip(from.Vm.GetIrqChip(chip));
            KvmIrqchip arrived = to.Vm.GetIrqChip(chip);
            Assert.Equal(mask, Bytes(ref arrived)[PicMask]);
        }
    }

    [KvmFact]
    public void Saved_controllers_timer_and_clock_are_the_same_in_another_vm()
    {
        using TinyVm from = new(_system, irqChip: true), to = new(_system, irqChip: true);
        KvmIrqchip state = from.Vm.GetIrqChip(IrqChip.IoApic);
        BinaryPrimitives.WriteUInt64LittleEndian(Bytes(ref state)[(IoApicTable + (8 * 7))..], 0x1_0000 | 0x77);
        from.Vm.SetIrqChip(state);
        KvmIrqchipStateV1 saved = KvmIrqchipStateV1.Capture(from.Vm);
        saved.Restore(to.Vm);
        KvmIrqchipStateV1 again = KvmIrqchipStateV1.Capture(to.Vm);
        Assert.Equal(saved.PicMaster, again.PicMaster);
        Assert.Equal(saved.PicSlave, again.PicSlave);
        Assert.Equal(saved.IoApic, again.IoApic);
        Assert.Throws<InvalidDataException>(() => (saved with { IoApic = saved.PicMaster }).Restore(to.Vm));
        Assert.Throws<InvalidDataException>(() => (saved with { PicSlave = [1, 2] }).Restore(to.Vm));
        from.Vm.SetClock(new KvmClockData { Clock = 5_000_000_000_000 });
        to.Vm.SetClock(KvmClockStateV1.Of(from.Vm.GetClock()).ToReading());
        Assert.InRange(to.Vm.GetClock().Clock, 5_000_000_000_000UL, 5_060_000_000_000UL);
    }

    [KvmFact]
    public void A_saved_timer_counts_on_with_its_mode_and_count()
    {
        using TinyVm from = new(_system, irqChip: true), to = new(_system, irqChip: true);
        from.Vm.CreatePit2();
        to.Vm.CreatePit2();
        KvmPitState2 pit = from.Vm.GetPit();
        (pit.Channel2.Mode, pit.Channel2.Count, pit.Channel2.Gate) = (3, 1193, 1);
        from.Vm.SetPit(pit);
        KvmPitStateV1.Capture(from.Vm).Restore(to.Vm);
        KvmPitState2 arrived = to.Vm.GetPit();
        Assert.Equal((3, 1193u, 1), (arrived.Channel2.Mode, arrived.Channel2.Count, arrived.Channel2.Gate));
        Assert.Throws<InvalidDataException>(() => new KvmPitStateV1 { Pit = [] }.Restore(to.Vm));
    }

    [KvmFact]
    public void A_line_that_is_up_shows_in_the_io_apic()
    {
        using TinyVm tiny = new(_system, irqChip: true);
        using EventFd trigger = new(), resample = new();
        tiny.Vm.AssignIrqFd(trigger, 9, resample);
        KvmIrqchip before = tiny.Vm.GetIrqChip(IrqChip.IoApic);
        const ulong level = 0x1_0000 | 0x8000 | 0x39; // masked, level triggered: it stays pending
        BinaryPrimitives.WriteUInt64LittleEndian(Bytes(ref before)[(IoApicTable + (8 * 9))..], level);
        tiny.Vm.SetIrqChip(before);
        trigger.Signal();
        Assert.True(
            SpinWait.SpinUntil(() => (Irr(tiny.Vm) & (1u << 9)) != 0, TimeSpan.FromSeconds(10)), "the irqfd did not raise its line");
        tiny.Vm.DeassignIrqFd(trigger, 9);
        tiny.Vm.SetIrqLine(10, level: true);
        Assert.NotEqual(0u, Irr(tiny.Vm) & (1u << 10));
        tiny.Vm.SetIrqLine(10, level: false);
    }

    [KvmFact]
    public void The_timer_moves_to_another_vm()
    {
        using TinyVm from = new(_system, irqChip: true), to = new(_system, irqChip: true);
        from.Vm.CreatePit2();
        to.Vm.CreatePit2();
        KvmPitState2 state = from.Vm.GetPit();
        state.Channel2.Count = 0x1234;
        state.Channel2.Mode = 3;
        state.Channel2.RwMode = 3;
        from.Vm.SetPit(state);
        to.Vm.SetPit(from.Vm.GetPit());
        KvmPitChannelState arrived = to.Vm.GetPit().Channel2;
        Assert.Equal((0x1234u, (byte)3, (byte)3), (arrived.Count, arrived.Mode, arrived.RwMode));
    }

    [KvmFact]
    public void The_clock_goes_on_from_where_it_was_set()
    {
        using TinyVm tiny = new(_system, irqChip: true);
        const ulong start = 1_000_000_000_000;
        tiny.Vm.SetClock(new KvmClockData { Clock = start });
        ulong first = tiny.Vm.GetClock().Clock, second = tiny.Vm.GetClock().Clock;
        Assert.InRange(first, start, start + (3600UL * 1_000_000_000));
        Assert.True(second >= first, "the clock went backwards");
    }

    [KvmFact]
    public void A_split_irqchip_has_local_apics_and_no_io_apic()
    {
        using TinyVm tiny = new(_system, prepare: vm => vm.CreateSplitIrqChip(24));
        Assert.True(tiny.Vm.HasKernelApic);
        Assert.Throws<KernelException>(() => tiny.Vm.GetIrqChip(IrqChip.IoApic));
        tiny.Vm.SignalMsi(0xFEE0_0000, 0x41); // to APIC id 0: accepted or blocked, but not an error
    }

    private static uint Irr(KvmVm vm)
    {
        KvmIrqchip state = vm.GetIrqChip(IrqChip.IoApic);
        return BinaryPrimitives.ReadUInt32LittleEndian(Bytes(ref state)[IoApicIrr..]);
    }

    private static Span<byte> Bytes(ref KvmIrqchip state) => MemoryMarshal.AsBytes(MemoryMarshal.CreateSpan(ref state.Chip, 1));
}
