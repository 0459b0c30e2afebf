using System.Buffers.Binary;
using Vmm.Devices.Tests.Virtio.Blk;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Pmem;
using Vmm.Interop;

namespace Vmm.Devices.Tests.Virtio.Pmem;

public sealed class VirtioPmemTests : IDisposable
{
    private const uint Flush = 0;
    private readonly string _path = Path.GetTempFileName();

    public void Dispose() => File.Delete(_path);

    [Fact]
    public void The_file_is_the_shared_memory_region_and_the_configuration_says_how_long_it_is()
    {
        using VirtioPmem device = Make(2 * (int)VirtioPmem.Granule);
        SharedMemoryRegion region = Assert.Single(device.SharedMemory);
        Assert.Equal((0, 2 * VirtioPmem.Granule, false), (region.Id, region.Memory.Length, region.Memory.IsReadOnly));
        byte[] config = new byte[16];
        device.ReadConfig(0, config);
        Assert.Equal(0UL, BinaryPrimitives.ReadUInt64LittleEndian(config)); // no BAR has an address yet
        Assert.Equal(2 * VirtioPmem.Granule, BinaryPrimitives.ReadUInt64LittleEndian(config.AsSpan(8)));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(512)]
    [InlineData((2 << 20) + 4096)]
    public void A_file_that_no_guest_can_map_is_refused_with_what_to_do(int length)
    {
        ArgumentException refused = Assert.Throws<ArgumentException>(() => Make(length));
        Assert.Contains("multiple of 2 MiB: truncate", refused.Message, StringComparison.Ordinal);
        Assert.Contains(_path, refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_flush_is_answered_in_whatever_pieces_its_answer_lies()
    {
        using BlkGuest guest = new(Make((int)VirtioPmem.Granule));
        for (int first = 1; first <= 4; first++)
        {
            Put(guest, Flush);
            guest.Ram(BlkGuest.Data + 64, 4).Fill(0xEE);
            ushort head = first == 4
                ? guest.Post((BlkGuest.Data, 4, false), (BlkGuest.Data + 64, 4, true))
                : guest.Post(
                    (BlkGuest.Data, 4, false), (BlkGuest.Data + 64, first, true), (BlkGuest.Data + 64 + (ulong)first, 4 - first, true));
            guest.Kick();
            Assert.Equal((head, 4u), ((ushort, uint))guest.WaitUsed());
            Assert.Equal(0, BinaryPrimitives.ReadInt32LittleEndian(guest.Ram(BlkGuest.Data + 64, 4)));
        }
    }

    [Fact]
    public void What_is_no_flush_is_refused_and_a_chain_without_room_asks_for_a_reset()
    {
        using BlkGuest guest = new(Make((int)VirtioPmem.Granule));
        Put(guest, 7);
        guest.Post((BlkGuest.Data, 4, false), (BlkGuest.Data + 64, 4, true));
        guest.Kick();
        guest.WaitUsed();
        Assert.Equal(-1, BinaryPrimitives.ReadInt32LittleEndian(guest.Ram(BlkGuest.Data + 64, 4)));
        Put(guest, Flush);
        guest.Post((BlkGuest.Data, 4, false), (BlkGuest.Data + 64, 3, true));
        guest.Kick();
        Assert.Contains("malformed", guest.WaitNeedsReset(), StringComparison.Ordinal);
        guest.Device.Reset();
        guest.Activate();
        Put(guest, Flush);
        guest.Post((BlkGuest.Data, 4, false), (BlkGuest.Data + 64, 4, true));
        guest.Kick();
        guest.WaitUsed();
    }

    [Fact]
    public void Flushes_under_way_end_before_a_hold_is_over_and_none_is_lost()
    {
        using BlkGuest guest = new(Make((int)VirtioPmem.Granule), activate: false);
        VirtioActivation activation = guest.Activation();
        guest.Device.Activate(activation);
        Put(guest, Flush);
        int answered = 0;
        for (int round = 0; round < 50; round++)
        {
            for (int i = 0; i < 8; i++)
            {
                guest.Post((BlkGuest.Data, 4, false), (BlkGuest.Data + 64 + (ulong)(i * 4), 4, true));
            }

            guest.Kick();
            Assert.True(guest.Device.TryHold(TimeSpan.FromSeconds(20)));
            Virtqueue queue = activation.Queues[0]!.Queue;
            Assert.Equal(queue.NextUsed, queue.NextAvailable);
            guest.Device.Resume();
            for (int i = 0; i < 8; i++, answered++)
            {
                guest.WaitUsed();
            }
        }

        Assert.Equal(400, answered);
    }

    [Fact]
    public void A_read_only_file_is_mapped_without_the_right_to_write()
    {
        File.WriteAllBytes(_path, new byte[VirtioPmem.Granule]);
        using VirtioPmem device = new("pmem0", BlockFile.Open(_path, writable: false, direct: false), _path, readOnly: true);
        Assert.True(device.SharedMemory[0].Memory.IsReadOnly);
    }

    [Fact]
    public void Nonsense_in_rings_and_chains_costs_a_reset_at_most() => QueueFuzz.Run(Make((int)VirtioPmem.Granule), seed: 27);

    private static void Put(BlkGuest guest, uint type) => BinaryPrimitives.WriteUInt32LittleEndian(guest.Ram(BlkGuest.Data, 4), type);

    private VirtioPmem Make(int length)
    {
        using (FileStream file = new(_path, FileMode.Create))
        {
            file.SetLength(length);
        }

        return new VirtioPmem("pmem0", BlockFile.Open(_path, writable: true, direct: false), _path, readOnly: false);
    }
}
