using Vmm.Devices.Tests.Virtio;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Devices.Tests.VhostUser;

/// <summary>A network device whose frames a back end moves.</summary>
public sealed class VhostUserNetTests
{
    private const ulong RingBits = 1UL << 32, Mac = 1 << 5, Status = 1 << 16, Mtu = 1 << 3, Mergeable = 1 << 15;

    private static readonly VhostUserLinkOptions s_quick =
        new() { Name = "vhost-user-net0", Of = "/the/socket", Pause = TimeSpan.FromMilliseconds(1) };

    [Fact]
    public void Frames_go_both_ways_also_with_the_next_back_end_and_the_link_is_down_between_them()
    {
        List<NetBackEnd> ends = [];
        using ManualResetEventSlim mayCome = new();
        VhostUserLink link = new(Next(), VhostUserNet.Needs, s_quick with
        {
            Connect = cancel =>
            {
                mayCome.Wait(cancel);
                return Task.FromResult(Next());
            },
        });
        List<MemoryExtent> memory = [];
        VhostUserNet device = new("vhost-user-net0", "/the/socket", [0x52, 0x54, 0, 1, 2, 3], 9000, 64, link, memory);
        using (QueueGuest guest = new(device, activate: false))
        {
            memory.Add(guest.Extent);
            guest.Activate(RingBits);
            Assert.Equal(Mac | Status | Mtu | Mergeable, device.DeviceFeatures);
            byte[] config = new byte[12];
            device.ReadConfig(0, config);
            Assert.Equal([0x52, 0x54, 0, 1, 2, 3, 1, 0, 1, 0, 0x28, 0x23], config);
            Exchange(guest, ends[0], 1);
            ends[0].Dispose();
            guest.Wait(() => guest.ConfigChanges == 1, "the driver does not hear of its link");
            Assert.False(IsUp(device));
            mayCome.Set();
            guest.Wait(() => guest.ConfigChanges == 2, "the driver does not hear of its link");
            Assert.True(IsUp(device));
            Exchange(guest, ends[1], 2);
            Assert.Contains("cannot be saved", Assert.Throws<StateException>(device.ThrowIfSaved).Message, StringComparison.Ordinal);
        }

        foreach (NetBackEnd end in ends)
        {
            end.Dispose();
            Assert.Null(end.Failure);
        }

        FileDescriptorHandle Next()
        {
            (UnixStream own, FileDescriptorHandle theirs) = UnixStream.CreatePair();
            ends.Add(new NetBackEnd(theirs));
            ends[^1].Start();
            return new FileDescriptorHandle(own.Detach());
        }
    }

    [Theory]
    [InlineData(0xFFFF_FFFF_FFFF_FFFFul, 0x1bba3)]
    [InlineData(0x1_0000_ab80ul | (1UL << 30), Mac | Status | Mergeable)] // offloads without checksums
    public void Of_what_a_back_end_offers_that_is_offered_which_it_carries_out(ulong offered, ulong expected)
    {
        (FakeBackEnd end, VhostUserLink link) = FakeBackEnd.Connect(s_quick, VhostUserNet.Needs, end => end.Features = offered);
        using (end)
        using (VhostUserNet device = new("vhost-user-net0", "/s", [2, 0, 0, 0, 0, 1], 0, 256, link, []))
        {
            Assert.Equal(expected & 0xFFFF_FFFF, device.DeviceFeatures);
            Assert.Equal(offered & ((1UL << 28) | (1UL << 29) | (1UL << 32)), device.RingFeatures);
        }
    }

    private static void Exchange(QueueGuest guest, NetBackEnd end, byte fill)
    {
        guest.Ram(QueueGuest.Data, 12).Clear();
        guest.Ram(QueueGuest.Data + 12, 60).Fill(fill);
        guest.Post(1, (QueueGuest.Data, 12, false), (QueueGuest.Data + 12, 60, false));
        Assert.True(end.FromGuest.TryTake(out byte[]? sent, 20_000));
        Assert.Equal(Enumerable.Repeat(fill, 60), sent!);
        guest.WaitUsed(1);
        guest.Post(0, (QueueGuest.Data + 0x1000, 1600, true));
        end.Send([.. Enumerable.Repeat((byte)(fill + 100), 64)]);
        Assert.Equal(76u, guest.WaitUsed(0).Written);
        Assert.All(guest.Ram(QueueGuest.Data + 0x1000 + 12, 64).ToArray(), b => Assert.Equal(fill + 100, b));
    }

    private static bool IsUp(VhostUserNet device)
    {
        byte[] status = new byte[2];
        device.ReadConfig(6, status);
        return status[0] == 1;
    }
}
