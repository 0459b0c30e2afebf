using Vmm.Interop;
using Vmm.Testing;

namespace Vmm.Kvm.Tests;

[Trait("Tier", "kvm")]
public sealed class DirtyLogTests : IDisposable
{
    private const int FirstPage = 0x100, LastPage = 0x105;
    private readonly KvmSystem _system = KvmSystem.Open();

    public void Dispose() => _system.Dispose();

    // l: mov byte [0x100000],1; mov byte [0x105fff],1; out 0x80,al; jmp l
    private static readonly byte[] Writer =
    [
        0xc6, 0x04, 0x25, 0, 0, 0x10, 0, 1, 0xc6, 0x04, 0x25, 0xff, 0x5f, 0x10, 0, 1, 0xe6, 0x80, 0xeb, 0xec
    ];

    [KvmFact]
    public void Log_shows_exactly_the_pages_written_since_the_last_get()
    {
        using TinyVm tiny = new(_system, flags: MemorySlotFlags.LogDirtyPages);
        tiny.StartUser(Writer);
        for (int round = 0; round < 3; round++)
        {
            tiny.RunToPort(0x80);
            Assert.Equal([FirstPage, LastPage], DirtyDataPages(tiny));
            Assert.Empty(DirtyDataPages(tiny));
        }
    }

    [KvmFact]
    public void With_manual_protect_pages_stay_dirty_until_cleared()
    {
        using TinyVm tiny = new(_system, flags: MemorySlotFlags.LogDirtyPages, prepare: vm => vm.EnableManualDirtyLogProtect());
        tiny.StartUser(Writer);
        tiny.RunToPort(0x80);
        Assert.Equal([FirstPage, LastPage], DirtyDataPages(tiny));
        Assert.Equal([FirstPage, LastPage], DirtyDataPages(tiny));

        ulong[] clear = [1]; // bit 0: page 0x100
        tiny.Vm.ClearDirtyLog(0, FirstPage, 64, clear);
        Assert.Equal([LastPage], DirtyDataPages(tiny));
        tiny.RunToPort(0x80);
        Assert.Equal([FirstPage, LastPage], DirtyDataPages(tiny));
    }

    [KvmFact]
    public void Short_bitmaps_and_slots_without_a_log_are_refused()
    {
        using TinyVm tiny = new(_system);
        Assert.Throws<ArgumentException>(() => tiny.Vm.GetDirtyLog(0, TinyVm.RamBytes, new ulong[7]));
        Assert.Throws<ArgumentException>(() => tiny.Vm.ClearDirtyLog(0, 0, 65, new ulong[1]));
        Assert.Throws<KernelException>(() => tiny.Vm.GetDirtyLog(0, TinyVm.RamBytes, new ulong[8]));
    }

    [KvmFact]
    public void Ring_tells_the_pages_in_the_order_they_were_written_until_they_are_given_back()
    {
        using TinyVm tiny = new(_system, flags: MemorySlotFlags.LogDirtyPages, prepare: vm => vm.EnableDirtyRing(64 << 10));
        using KvmDirtyRing ring = tiny.Vcpu.OpenDirtyRing();
        Assert.Equal((64 << 10) / 16, ring.Capacity);
        tiny.StartUser(Writer);
        for (int round = 0; round < 3; round++)
        {
            tiny.RunToPort(0x80);
            Assert.Equal([FirstPage, LastPage], Collected(ring));
            tiny.RunToPort(0x80); // not protected again yet: nothing new
            Assert.Empty(Collected(ring));
            Assert.True(tiny.Vm.ResetDirtyRings() >= 2);
        }

        Assert.Throws<KernelException>(() => tiny.Vm.GetDirtyLog(0, TinyVm.RamBytes, new ulong[8]));
    }

    [KvmFact]
    public void A_full_ring_stops_the_vcpu_and_loses_nothing()
    {
        // mov rcx,0x100000; l: mov byte [rcx],1; add rcx,0x1000; cmp rcx,0x200000; jb l; out 0x80,al: 256 pages, more than a ring of one
        // page has entries for
        byte[] sweep =
        [
            0x48, 0xc7, 0xc1, 0, 0, 0x10, 0, 0xc6, 0x01, 1, 0x48, 0x81, 0xc1, 0, 0x10, 0, 0, 0x48, 0x81, 0xf9, 0, 0, 0x20, 0, 0x72, 0xed,
            0xe6, 0x80, 0xeb, 0xfe
        ];
        using TinyVm tiny = new(_system, flags: MemorySlotFlags.LogDirtyPages, prepare: vm => vm.EnableDirtyRing(4096));
        using KvmDirtyRing ring = tiny.Vcpu.OpenDirtyRing();
        tiny.StartUser(sweep);
        List<int> pages = [];
        int full = 0;
        for (KvmExit exit = tiny.Vcpu.Run(); exit != KvmExit.Io; exit = tiny.Vcpu.Run())
        {
            full += exit == KvmExit.DirtyRingFull ? 1 : 0;
            Assert.True(exit is KvmExit.DirtyRingFull or KvmExit.Interrupted, exit.ToString());
            pages.AddRange(Collected(ring));
            _ = tiny.Vm.ResetDirtyRings();
        }

        pages.AddRange(Collected(ring));
        Assert.True(full > 0, "256 pages fitted into a ring of 256 entries, some of which are reserved");
        Assert.Equal(Enumerable.Range(FirstPage, 256), pages.Distinct());
    }

    [KvmFact]
    public void A_vm_without_rings_has_none_to_open()
    {
        using TinyVm tiny = new(_system);
        Assert.Throws<InvalidOperationException>(() => tiny.Vcpu.OpenDirtyRing());
    }

    private static int[] Collected(KvmDirtyRing ring)
    {
        DirtyPage[] pages = new DirtyPage[300];
        int count = ring.Collect(pages.AsSpan(0, 3)); // a short buffer first: the rest stays for the next call
        count += ring.Collect(pages.AsSpan(count));
        Assert.All(pages.Take(count), page => Assert.Equal(0u, page.Slot));
        return [.. pages.Take(count).Select(page => (int)page.Page).Where(page => page >= FirstPage)];
    }

    /// <summary>Dirty pages from 1 MiB on: below lie page tables, whose accessed bits are the processor's business.</summary>
    private static int[] DirtyDataPages(TinyVm tiny)
    {
        ulong[] bitmap = new ulong[KvmVm.DirtyBitmapWords(TinyVm.RamBytes)];
        tiny.Vm.GetDirtyLog(0, TinyVm.RamBytes, bitmap);
        return [.. Enumerable.Range(FirstPage, bitmap.Length * 64 - FirstPage).Where(page => (bitmap[page / 64] >> (page % 64) & 1) != 0)];
    }
}
