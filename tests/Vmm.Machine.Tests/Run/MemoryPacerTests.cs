using Vmm.Devices;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Mem;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Machine.Tests.Run;

public sealed class MemoryPacerTests
{
    private const ulong MiB = 1 << 20;

    [Fact]
    public void Without_a_balloon_a_wish_is_passed_on_whole()
    {
        using VirtioMem device = Device();
        using MemoryPacer pacer = new(() => null);
        pacer.Add(device);
        Assert.Equal((8 * MiB, 0UL), pacer.StateOf(device));
        pacer.Wish(device, 2 * MiB, force: false);
        Assert.Equal(2 * MiB, device.Info.Requested.Bytes);
    }

    [Fact]
    public void A_balloon_whose_guest_never_spoke_changes_nothing()
    {
        using VirtioMem device = Device();
        using VirtioBalloon balloon = new();
        using MemoryPacer pacer = new(() => balloon);
        pacer.Add(device);
        pacer.Wish(device, 0, force: false);
        Assert.Equal((0UL, 0UL), pacer.StateOf(device));
        Assert.Equal(0UL, device.Info.Requested.Bytes);
    }

    [Fact]
    public void A_device_of_another_machine_is_refused()
    {
        using VirtioMem device = Device();
        using MemoryPacer pacer = new(() => null);
        Assert.Throws<ArgumentException>(() => pacer.Wish(device, 0, force: false));
    }

    [Fact]
    public async Task Held_it_asks_for_nothing_and_a_saved_wish_is_pursued_when_it_goes_on()
    {
        using VirtioMem device = Device();
        StateWriter saved = new(new PartId("mem0"));
        saved.Write(DeviceStates.Mem, new() { BlockBytes = 2 * MiB, Blocks = 8, RequestedBytes = 8 * MiB, Plugged = [0x0F] });
        device.Restore(new StateReader(saved.ToBlob()));
        using VirtioBalloon balloon = new();
        using MemoryPacer pacer = new(() => balloon);
        pacer.Add(device);
        pacer.Restore(device, 2 * MiB, forced: false);
        await Task.Delay(1200); // it looks every half second
        Assert.Equal((8 * MiB, (2 * MiB, false)), (device.Info.Requested.Bytes, pacer.WishOf(device)));
        pacer.Resume();
        for (int wait = 0; device.Info.Requested.Bytes != 2 * MiB; wait++)
        {
            Assert.True(wait < 500, $"the device asks for {device.Info.Requested}");
            await Task.Delay(20);
        }

        pacer.Wish(device, 6 * MiB, force: false);
        pacer.Wish(device, 4 * MiB, force: false);
        pacer.Hold();
        device.SetRequested(new ByteSize(6 * MiB)); // as if it had not been asked for all of it yet
        await Task.Delay(1200);
        Assert.Equal(6 * MiB, device.Info.Requested.Bytes);
    }

    private static VirtioMem Device() => new(
        new VirtioMemOptions { Start = new GuestAddress(1UL << 32), Length = ByteSize.MiB(16), Requested = ByteSize.MiB(8) },
        new Anything());

    private sealed class Anything : IPluggableMemory
    {
        public bool TryPlug(ulong offset, ulong length) => true;

        public void Unplug(ulong offset, ulong length) { }

        public bool TryRestore(ReadOnlySpan<bool> plugged) => true;
    }
}
