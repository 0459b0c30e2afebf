using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Mem;
using Vmm.Machine.Run;
using Vmm.Memory;

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

    private static VirtioMem Device() => new(new VirtioMemOptions { Start = new GuestAddress(1UL << 32), Length = ByteSize.MiB(16), Requested = ByteSize.MiB(8) }, new Anything());

    private sealed class Anything : IPluggableMemory
    {
        public bool TryPlug(ulong offset, ulong length) => true;

        public void Unplug(ulong offset, ulong length) { }
    }
}
