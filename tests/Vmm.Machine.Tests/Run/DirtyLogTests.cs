using Vmm.Devices;
using Vmm.Devices.Virtio.Mem;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.State;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>One view of what the guest writes (KVM's log) and of what devices write (marks of leases).</summary>
[Trait("Tier", "kvm")]
public sealed class DirtyLogTests
{
    private const int Base = 32 << 20, Bytes = 4 << 20;

    [KvmFact]
    public void Pages_that_the_guest_and_devices_write_are_told_once_also_of_memory_that_comes()
    {
        using Terminal terminal = new();
        VmSpec spec = GuestSpec("dirty");
        spec = spec with
        {
            Memory = ByteSize.MiB(64),
            MaxMemory = ByteSize.MiB(128),
            Boot = spec.Boot with { Cmdline = $"mib={Bytes >> 20} base={Base} seconds=4 tsc_khz=2500000" },
        };
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        Thread run = Start(machine, out Func<RunResult> result);
        terminal.WaitFor("READY dirty");
        MemoryMapOwner owner = machine.MapOwner;
        MemorySlot low = owner.Slots[0];
        Assert.Throws<InvalidOperationException>(() => owner.TakeDirty(low, new ulong[Words(low)]));
        owner.StartDirtyLog();
        owner.StartDirtyLog();
        Thread.Sleep(300);
        machine.Pause();
        GuestAddress own = new(60 << 20);
        Assert.True(machine.Memory.Dma.TryWrite(own, "device"u8));
        HashSet<int> first = Take(owner, low);
        Assert.Contains((60 << 20) / 4096, first);
        Assert.Contains(first, IsOfGuest);
        Assert.DoesNotContain((50 << 20) / 4096, first);
        Assert.Empty(Take(owner, low)); // each is told once
        machine.Resume();
        Thread.Sleep(300);
        machine.Pause();
        HashSet<int> second = Take(owner, low);
        Assert.Contains(second, IsOfGuest);
        Assert.DoesNotContain((60 << 20) / 4096, second);

        // Memory that comes while it logs.
        VirtioMem device = (VirtioMem)machine.DeviceSet.All.Single(d => d.Device is VirtioMem).Device;
        StateWriter plugged = new(new PartId("mem0"));
        plugged.Write(DeviceStates.Mem, new() { BlockBytes = 2 << 20, Blocks = 32, RequestedBytes = 2 << 20, Plugged = [1, 0, 0, 0] });
        device.Restore(new StateReader(plugged.ToBlob())); // as its driver would
        MemorySlot hot = owner.Slots.Single(s => s.Region.Start.Value >= 1UL << 32);
        Assert.Empty(Take(owner, hot));
        Assert.True(machine.Memory.Dma.TryWrite(hot.Region.Start + (3 * 4096), "x"u8));
        Assert.Equal([3], Take(owner, hot));

        owner.StopDirtyLog();
        Assert.All(owner.Slots, slot => Assert.False(slot.IsLogged));
        Assert.Throws<InvalidOperationException>(() => owner.TakeDirty(low, new ulong[Words(low)]));
        Assert.Throws<ArgumentException>(() => owner.TakeDirty(low, new ulong[1]));
        machine.Resume();
        Assert.True(run.Join(60_000));
        Assert.True(result().ExitCode == 0, terminal.Said);
    }

    private static bool IsOfGuest(int page) => page is >= Base / 4096 and < (Base + Bytes) / 4096;

    private static int Words(MemorySlot slot) => (int)((slot.Region.Length.Pages + 63) / 64);

    private static HashSet<int> Take(MemoryMapOwner owner, MemorySlot slot)
    {
        ulong[] bitmap = new ulong[Words(slot)];
        owner.TakeDirty(slot, bitmap);
        return [.. Enumerable.Range(0, bitmap.Length * 64).Where(page => (bitmap[page / 64] >> (page % 64) & 1) != 0)];
    }
}
