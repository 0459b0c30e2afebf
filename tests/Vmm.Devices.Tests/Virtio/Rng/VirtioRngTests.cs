using Vmm.Devices.Tests.Virtio.Blk;
using Vmm.Devices.Virtio.Rng;

namespace Vmm.Devices.Tests.Virtio.Rng;

public sealed class VirtioRngTests
{
    [Fact]
    public void Buffers_are_filled_with_different_bytes()
    {
        using BlkGuest guest = new(new VirtioRng());
        for (int i = 0; i < 100; i++)
        {
            ulong at = BlkGuest.Data + ((ulong)i * 64);
            guest.Post((at, 32, true), (at + 32, 32, true));
            guest.Kick();
            Assert.Equal(64u, guest.WaitUsed().Written);
        }

        HashSet<string> seen = [];
        for (int i = 0; i < 200; i++)
        {
            Assert.True(seen.Add(Convert.ToHexString(guest.Ram(BlkGuest.Data + ((ulong)i * 32), 32))));
        }
    }

    [Fact]
    public void A_huge_buffer_gets_a_bounded_answer()
    {
        using BlkGuest guest = new(new VirtioRng());
        guest.Post((BlkGuest.Data, 6 << 20, true));
        guest.Kick();
        Assert.Equal((uint)VirtioRng.MaxBytesPerChain, guest.WaitUsed().Written);
        Assert.Equal(-1, guest.Ram(BlkGuest.Data + VirtioRng.MaxBytesPerChain, 4096).IndexOfAnyExcept((byte)0));
    }

    [Fact]
    public void A_looped_chain_asks_for_a_reset_and_a_reset_heals()
    {
        using BlkGuest guest = new(new VirtioRng());
        guest.WriteDescriptor(0, BlkGuest.Data, 16, 3, 0);
        guest.MakeAvailable(0);
        guest.Kick();
        Assert.Contains("malformed", guest.WaitNeedsReset(), StringComparison.Ordinal);
        guest.Device.Reset();
        guest.Activate();
        guest.Post((BlkGuest.Data, 16, true));
        guest.Kick();
        Assert.Equal(16u, guest.WaitUsed().Written);
    }
}
