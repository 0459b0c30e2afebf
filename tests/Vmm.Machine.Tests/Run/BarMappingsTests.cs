using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.Kvm.Tests;
using Vmm.Machine.Layout;
using Vmm.Machine.Ram;
using Vmm.Memory;
using Vmm.Testing;

namespace Vmm.Machine.Tests.Run;

/// <summary>Memory behind BARs with a real KVM: the guest reads and writes it where the BAR is, and nowhere else.</summary>
[Trait("Tier", "kvm")]
public sealed class BarMappingsTests : IDisposable
{
    private const ulong Window = TinyVm.MmioWindow, WindowLength = 1 << 20, Size = 0x2000;

    // l: mov al,[0x40001000]; inc al; mov [0x40001000],al; out 0x80,al; jmp l
    private static readonly byte[] s_counter =
        [0x8a, 0x04, 0x25, 0, 0x10, 0, 0x40, 0xfe, 0xc0, 0x88, 0x04, 0x25, 0, 0x10, 0, 0x40, 0xe6, 0x80, 0xeb, 0xec];

    private readonly KvmSystem _system = KvmSystem.Open();
    private readonly AnonymousMapping _memory = new(Size);

    public void Dispose()
    {
        _memory.Dispose();
        _system.Dispose();
    }

    [KvmFact]
    public void A_guest_reaches_the_memory_without_leaving_until_it_is_unmapped()
    {
        using TinyVm tiny = new(_system);
        BarMappings mappings = Mappings(tiny);
        tiny.StartUser(s_counter);
        Assert.True(mappings.TryMap(new GuestAddress(Window), _memory.Address, Size, isReadOnly: false));
        for (byte i = 1; i < 4; i++)
        {
            tiny.RunToPort(0x80);
            Assert.Equal(i, _memory.Slice(0x1000, 1)[0]);
        }

        mappings.Unmap(new GuestAddress(Window));
        Assert.Equal(KvmExit.Mmio, Next(tiny));
        mappings.Unmap(new GuestAddress(Window)); // twice is harmless
    }

    [KvmFact]
    public void A_guest_cannot_write_what_is_read_only()
    {
        using TinyVm tiny = new(_system);
        BarMappings mappings = Mappings(tiny);
        tiny.StartUser(s_counter);
        _memory.Slice(0x1000, 1)[0] = 41;
        Assert.True(mappings.TryMap(new GuestAddress(Window), _memory.Address, Size, isReadOnly: true));
        Assert.Equal(KvmExit.Mmio, Next(tiny));
        Assert.Equal(41, _memory.Slice(0x1000, 1)[0]);
    }

    [KvmFact]
    public void Only_the_windows_take_memory_and_slots_are_used_again()
    {
        using TinyVm tiny = new(_system);
        BarMappings mappings = Mappings(tiny);
        foreach (ulong at in (ulong[])
        [
            0, 0x10_0000, TinyVm.RamBytes, Window - 0x1000, Window + WindowLength - 0x1000, Window + WindowLength, 1UL << 63,
            ulong.MaxValue - 0xFFF
        ])
        {
            Assert.False(mappings.TryMap(new GuestAddress(at), _memory.Address, Size, isReadOnly: false), $"0x{at:x}");
        }

        for (int round = 0; round < 2; round++)
        {
            ulong[] places = [.. Enumerable.Range(0, 64).Select(i => Window + ((ulong)i * Size))];
            Assert.All(places, at => Assert.True(mappings.TryMap(new GuestAddress(at), _memory.Address, Size, isReadOnly: false)));
            Assert.All(places, at => mappings.Unmap(new GuestAddress(at)));
        }

        Assert.True(mappings.TryMap(new GuestAddress(Window), _memory.Address, Size, isReadOnly: false));
        Assert.False(mappings.TryMap(new GuestAddress(Window + 0x1000), _memory.Address, Size, isReadOnly: false)); // over another
        tiny.StartUser(s_counter);
        tiny.RunToPort(0x80); // its RAM is where it was
    }

    private static BarMappings Mappings(TinyVm tiny)
    {
        GuestRam ram = new([new GuestRegion(new GuestAddress(0), new ByteSize(TinyVm.RamBytes), tiny.Memory.Address)]);
        return new BarMappings(
            new MemoryMapOwner(ram, new KvmMemorySlots(tiny.Vm)), new AddressWindow(new GuestAddress(Window), new ByteSize(WindowLength)));
    }

    private static KvmExit Next(TinyVm tiny)
    {
        KvmExit exit;
        do
        {
            exit = tiny.Vcpu.Run();
        }
        while (exit == KvmExit.Interrupted);

        return exit;
    }
}
