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
    private static readonly byte[] Writer = [0xc6, 0x04, 0x25, 0, 0, 0x10, 0, 1, 0xc6, 0x04, 0x25, 0xff, 0x5f, 0x10, 0, 1, 0xe6, 0x80, 0xeb, 0xec];

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

    /// <summary>Dirty pages from 1 MiB on: below lie page tables, whose accessed bits are the processor's business.</summary>
    private static int[] DirtyDataPages(TinyVm tiny)
    {
        ulong[] bitmap = new ulong[KvmVm.DirtyBitmapWords(TinyVm.RamBytes)];
        tiny.Vm.GetDirtyLog(0, TinyVm.RamBytes, bitmap);
        return [.. Enumerable.Range(FirstPage, bitmap.Length * 64 - FirstPage).Where(page => (bitmap[page / 64] >> (page % 64) & 1) != 0)];
    }
}
