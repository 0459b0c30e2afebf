using Vmm.Devices.Virtio.Net;
using Vmm.Machine.Tests.Run;
using Vmm.Testing;

namespace Vmm.Hostile.Tests;

/// <summary>
/// Frames and headers of nonsense to a real tap, alone and in a bridge, in a network namespace of the test's own: the host's kernel judges
/// them (virtio 1.2 section 5.1.6.2).
/// </summary>
[Trait("Tier", "kvm")]
public sealed class RealTapTests
{
    private const ulong Out = DeviceGuest.Data + 0x8000;

    [KvmFact(NeedsRoot = true)]
    public void Headers_of_nonsense_are_given_back_and_the_next_frame_goes() => Run(bridge: false, Headers);

    [KvmFact(NeedsRoot = true)]
    public void Headers_of_nonsense_into_a_bridge_are_given_back_and_the_next_frame_goes() => Run(bridge: true, Headers);

    [KvmFact(NeedsRoot = true)]
    public void Frames_of_any_length_are_given_back_and_the_next_frame_goes() => Run(bridge: false, Lengths);

    [KvmFact(NeedsRoot = true)]
    public void Frames_of_any_length_into_a_bridge_are_given_back_and_the_next_frame_goes() => Run(bridge: true, Lengths);

    [KvmFact(NeedsRoot = true)]
    public void Addresses_of_others_into_a_bridge_are_sent_and_harm_nobody() => Run(bridge: true, (_, guest) =>
    {
        foreach (byte first in (byte[])[0, 1, 0x33, 0x52, 0xFF])
        {
            Span<byte> frame = guest.At(Out, 72);
            frame.Clear();
            frame[12..24].Fill(first); // to and from
            frame[24] = 0x81; // a VLAN tag
            Assert.Equal(0u, guest.Request(1, new Piece(Out, 72, false)));
        }
    });

    [KvmFact(NeedsRoot = true)]
    public void A_tap_that_goes_away_under_way_leaves_a_device_that_answers() => Run(bridge: false, (network, guest) =>
    {
        network.Do(() =>
        {
            TapNamespace.Ip("link", "del", "vmtap0");
            return 0;
        });
        for (int i = 0; i < 30; i++)
        {
            Assert.Equal(0u, guest.Request(1, new Piece(Out, 72, false)));
        }
    }, gone: true);

    private static void Headers(TapNamespace network, DeviceGuest guest)
    {
        Random random = new(8);
        for (int i = 0; i < 400; i++)
        {
            Span<byte> frame = guest.At(Out, 2048);
            random.NextBytes(frame);
            frame[0] = (byte)random.Next(4); // flags that are known, mostly
            frame[1] = (byte)random.Next(6);
            Assert.Equal(0u, guest.Request(1, new Piece(Out, (uint)random.Next(12, 2048), false)));
        }
    }

    private static void Lengths(TapNamespace network, DeviceGuest guest)
    {
        guest.At(Out, 0x8000).Clear();
        foreach (uint length in (uint[])[12, 13, 25, 26, 27, 72, 1526, 1527, 9000, 0x8000])
        {
            Assert.Equal(0u, guest.Request(1, new Piece(Out, length, false)));
            Assert.Equal(0u, guest.Request(1, new Piece(Out, length, false), new Piece(Out, 0x8000, false), new Piece(Out, 0x8000, false)));
        }
    }

    private static void Run(bool bridge, Action<TapNamespace, DeviceGuest> abuse, bool gone = false)
    {
        using TapNamespace network = new();
        if (bridge)
        {
            network.Do(() =>
            {
                TapNamespace.Ip("link", "add", "br0", "type", "bridge");
                TapNamespace.Ip("link", "set", "vmtap0", "master", "br0");
                TapNamespace.Ip("link", "set", "br0", "up");
                return 0;
            });
        }

        using VirtioNet device = new(
            network.Do(() => TapBackend.Open("vmtap0", 1)), new VirtioNetOptions { Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 } });
        using DeviceGuest guest = new(device, TransportKind.Pci);
        guest.Start();
        abuse(network, guest);
        Assert.False(guest.Broken, guest.Port.Transport.LastFault);
        guest.Start();
        long sent = device.Counters.SentPackets;
        guest.At(Out, 72).Clear();
        guest.At(Out + 12, 6).Fill(0xFF);
        Assert.Equal(0u, guest.Request(1, new Piece(Out, 72, false)));
        Assert.Equal(gone ? 0 : 1, device.Counters.SentPackets - sent);
    }
}
