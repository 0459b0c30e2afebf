using Vmm.Devices.Tests.Virtio.Blk;
using Vmm.Devices.Tests.Virtio.Net;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Net;
using Vmm.Devices.Virtio.Rng;
using Vmm.Memory;
using Vmm.Storage;
using Vmm.Testing;

namespace Vmm.Devices.Tests.Virtio;

/// <summary>A transfer begins only when its pages are there, and one that waits stalls nothing but itself or its own queue.</summary>
public sealed class PagingTests
{
    private const ulong In = QueueGuest.Data, Out = QueueGuest.Data + 0x800000;

    [Fact]
    public void A_chain_waits_for_its_pages_and_is_filled_when_they_came()
    {
        using BlkGuest guest = new(new VirtioRng());
        FakePager pager = new(guest.Memory);
        pager.PageOut(BlkGuest.Data, 4096);
        guest.Post((BlkGuest.Data, 64, true));
        guest.Kick();
        Wait(() => pager.Waiting == 1);
        Assert.False(guest.TryTakeUsed(out _, out _));
        Assert.Equal(-1, guest.Ram(BlkGuest.Data, 64).IndexOfAnyExcept((byte)0));
        pager.PageIn();
        Assert.Equal(64u, guest.WaitUsed().Written);
        Assert.NotEqual(-1, guest.Ram(BlkGuest.Data, 64).IndexOfAnyExcept((byte)0));
    }

    [Fact]
    public void Other_queues_of_the_device_go_on_meanwhile()
    {
        using VirtioBalloon device = new();
        using QueueGuest guest = new(device);
        FakePager pager = new(guest.Memory);
        pager.PageOut(In, 4096);
        guest.Post(0, (In, 4, false));
        Wait(() => pager.Waiting == 1);
        guest.Post(1, (Out, 4, false));
        guest.WaitUsed(1);
        Assert.False(guest.TryTakeUsed(0, out _, out _));
        pager.PageIn();
        guest.WaitUsed(0);
    }

    [Fact]
    public void A_disk_request_that_waits_is_passed_by_later_ones()
    {
        using BlkGuest guest = new(new VirtioBlk(new MemoryDiskBackend(1 << 20)));
        FakePager pager = new(guest.Memory);
        pager.PageOut(BlkGuest.Data, 4096);
        ulong header = guest.PutHeader(0, 0), status = guest.PutStatus(0);
        ushort slow = guest.Post((header, 16, false), (BlkGuest.Data, 512, true), (status, 1, true));
        guest.Kick();
        Wait(() => pager.Waiting == 1);
        for (int i = 0; i < 10; i++)
        {
            ulong at = guest.PutHeader(0, (ulong)i, 1), done = guest.PutStatus(1);
            ushort quick = guest.Post((at, 16, false), (BlkGuest.Data + 8192, 512, true), (done, 1, true));
            guest.Kick();
            Assert.Equal(quick, guest.WaitUsed().Head);
        }

        Assert.Equal(0xee, guest.Ram(status, 1)[0]);
        pager.PageIn();
        Assert.Equal(slow, guest.WaitUsed().Head);
        Assert.Equal(0, guest.Ram(status, 1)[0]);
    }

    [Theory]
    [InlineData("header")]
    [InlineData("status")]
    [InlineData("table")]
    public void A_disk_request_whose_header_or_status_is_out_stays_in_the_ring_while_others_end(string what)
    {
        const ulong Away = BlkGuest.Data + (64 << 10);
        using BlkGuest guest = new(new VirtioBlk(new MemoryDiskBackend(1 << 20)), indirect: true);
        FakePager pager = new(guest.Memory);
        pager.PageOut(BlkGuest.Data, 4096);
        ushort before = guest.Post((guest.PutHeader(0, 0), 16, false), (BlkGuest.Data, 512, true), (guest.PutStatus(), 1, true));
        guest.Kick();
        Wait(() => pager.Waiting == 1); // storage does not have it: its data is out
        pager.PageOut(Away, 4096);
        ulong header = guest.PutHeader(0, 1, 1), status = guest.PutStatus(1);
        if (what == "header")
        {
            guest.Ram(header, 16).CopyTo(guest.Ram(Away, 16));
            header = Away;
        }
        else if (what == "status")
        {
            guest.Ram(Away, 1).Fill(0xee);
            status = Away;
        }

        (ulong, int, bool)[] chain = [(header, 16, false), (BlkGuest.Data + 8192, 512, true), (status, 1, true)];
        ushort slow = what == "table" ? guest.PostIndirect(Away, chain) : guest.Post(chain);
        guest.Kick();
        Wait(() => pager.Waiting == 2);
        Assert.False(guest.TryTakeUsed(out _, out _));
        pager.PageIn(); // both
        ushort[] ended = [(ushort)guest.WaitUsed().Head, (ushort)guest.WaitUsed().Head];
        Assert.Equal([before, slow], ended.Order());
        Assert.Equal(0, guest.Ram(status, 1)[0]);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_hold_of_a_disk_waits_for_pages_and_a_reset_does_so_too(bool reset)
    {
        using BlkGuest guest = new(new VirtioBlk(new MemoryDiskBackend(1 << 20)));
        FakePager pager = new(guest.Memory);
        pager.PageOut(BlkGuest.Data, 4096);
        guest.Post((guest.PutHeader(0, 0), 16, false), (BlkGuest.Data, 512, true), (guest.PutStatus(), 1, true));
        guest.Kick();
        Wait(() => pager.Waiting == 1);
        TimeSpan patience = TimeSpan.FromMilliseconds(50);
        Assert.False(reset ? guest.Device.TryReset(patience) : guest.Device.TryHold(patience));
        pager.PageIn();
        Assert.True(reset ? guest.Device.TryReset(TimeSpan.FromSeconds(20)) : guest.Device.TryHold(TimeSpan.FromSeconds(20)));
    }

    [Fact]
    public void Frames_of_both_directions_wait_for_their_pages_and_keep_their_order()
    {
        MemoryNet net = new();
        using QueueGuest guest = new(new VirtioNet(net, new VirtioNetOptions { Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 } }));
        FakePager pager = new(guest.Memory);
        pager.PageOut(In, 1 << 20);
        for (int i = 0; i < 8; i++)
        {
            guest.Post(0, (In + ((ulong)i * 2048), 2048, true));
        }

        for (byte i = 0; i < 8; i++)
        {
            net.Send(0, [.. Enumerable.Repeat(i, 60)]);
        }

        Wait(() => pager.Waiting == 1);
        Assert.False(guest.TryTakeUsed(0, out _, out _));
        pager.PageIn();
        for (byte i = 0; i < 8; i++)
        {
            (uint head, uint written) = guest.WaitUsed(0);
            Assert.Equal((i, 72u), ((byte)head, written));
            Assert.Equal(i, guest.Ram(In + (head * 2048UL) + 12, 1)[0]);
        }

        pager.PageOut(Out, 1 << 20);
        for (byte i = 0; i < 8; i++)
        {
            guest.Ram(Out + ((ulong)i * 2048) + 12, 60).Fill(i);
            guest.Post(1, (Out + ((ulong)i * 2048), 72, false));
        }

        Wait(() => pager.Waiting == 1);
        Assert.False(guest.TryTakeUsed(1, out _, out _));
        pager.PageIn();
        for (byte i = 0; i < 8; i++)
        {
            guest.WaitUsed(1);
            Assert.Equal(i, net.Receive(0)![12]);
        }
    }

    [Fact]
    public void Pages_that_a_device_wrote_are_marked_and_no_others()
    {
        using BlkGuest guest = new(new VirtioBlk(new MemoryDiskBackend(1 << 20)));
        guest.Memory.Ram.StartTrackingWrites();
        guest.Request(1, 0, BlkGuest.Data, 8192, dataWritable: false);
        Assert.DoesNotContain(BlkGuest.Data >> 12, Written(guest.Memory));
        guest.Request(0, 0, BlkGuest.Data + 0x10000, 8192, dataWritable: true);
        HashSet<ulong> written = Written(guest.Memory);
        Assert.Contains((BlkGuest.Data + 0x10000) >> 12, written);
        Assert.Contains((BlkGuest.Data + 0x11000) >> 12, written);
        Assert.Contains(3UL, written); // the used ring
        Assert.Contains(8UL, written); // the status byte
        Assert.DoesNotContain((BlkGuest.Data + 0x12000) >> 12, written);
        Assert.DoesNotContain(BlkGuest.Data >> 12, written);
        Assert.DoesNotContain(1UL, written); // descriptors are the driver's
    }

    [Fact]
    public void A_posted_receive_buffer_is_marked_when_a_frame_went_into_it()
    {
        MemoryNet net = new();
        using QueueGuest guest = new(new VirtioNet(net, new VirtioNetOptions { Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 } }));
        guest.Memory.Ram.StartTrackingWrites();
        for (int i = 0; i < 8; i++)
        {
            guest.Post(0, (In + ((ulong)i * 4096), 2048, true));
        }

        net.Send(0, new byte[60]);
        guest.WaitUsed(0);
        HashSet<ulong> written = Written(guest.Memory);
        Assert.Contains(In >> 12, written);
        for (ulong i = 1; i < 8; i++)
        {
            Assert.DoesNotContain((In >> 12) + i, written);
        }
    }

    private static HashSet<ulong> Written(GuestMemory memory)
    {
        ulong[] bits = new ulong[memory.Total.Bytes / 4096 / 64];
        memory.Ram.CollectWrittenPages(new(0), (ulong)bits.Length * 64, bits);
        return [.. Enumerable.Range(0, bits.Length * 64).Where(p => (bits[p / 64] >> (p % 64) & 1) != 0).Select(p => (ulong)p)];
    }

    private static void Wait(Func<bool> condition) => Assert.True(SpinWait.SpinUntil(condition, 20_000));
}
