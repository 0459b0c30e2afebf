using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Vmm.Devices.Tests.Virtio;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio.Blk;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Devices.Tests.VhostUser;

/// <summary>A disk that a back end has: one that serves and dies between any two steps, and one that lies.</summary>
public sealed class VhostUserBlkTests
{
    private const int DiskBytes = 1 << 20, Size = QueueGuest.Size;
    private const ulong RingBits = BlkRequests.RingBits;

    private static readonly VhostUserLinkOptions s_quick = new()
    {
        Name = "vhost-user-blk0",
        Of = "/the/socket",
        Patience = TimeSpan.FromSeconds(20),
        StopPatience = TimeSpan.FromSeconds(20),
        Pause = TimeSpan.FromMilliseconds(1),
    };

    [Fact]
    public void What_is_written_is_read_and_the_driver_sees_what_the_back_end_says()
    {
        BackEndDisk disk = new(DiskBytes);
        using BlkBench bench = new(s_quick, disk, queues: 2);
        Assert.Equal((ushort)2, bench.Device.DeviceType);
        Assert.Equal(DiskBytes / 512UL, bench.Device.Sectors);
        Assert.Equal(2, Word(bench.Device, 34)); // num_queues: ours
        Assert.Equal(Size - 2, Word(bench.Device, 12)); // seg_max: what a chain of our queue has room for
        Assert.Equal(0UL, bench.Device.DeviceFeatures & (1UL << 11)); // the cache mode is not the driver's
        foreach (int queue in new[] { 0, 1 })
        {
            bench.Write(queue, slot: queue, sector: 8 + queue, fill: (byte)(0x40 + queue));
            Assert.Equal(0, bench.WaitStatus(queue, queue));
            Assert.All(disk.Content.AsSpan((8 + queue) * 512, 512).ToArray(), b => Assert.Equal(0x40 + queue, b));
            bench.Read(queue, slot: 2 + queue, sector: 8 + queue);
            Assert.Equal(0, bench.WaitStatus(queue, 2 + queue));
            Assert.All(bench.Data(2 + queue).ToArray(), b => Assert.Equal(0x40 + queue, b));
        }

        bench.Device.Reset();
        bench.Guest.Activate(RingBits);
        bench.Read(0, slot: 5, sector: 8);
        Assert.Equal(0, bench.WaitStatus(0, 5));
        Assert.Null(bench.Failure);
    }

    /// <summary>The death of a back end between any two of its steps, with requests that it completes in another order.</summary>
    [Fact]
    public void Whenever_a_back_end_dies_each_request_is_completed_once_by_the_next()
    {
        for (int seed = 1; seed <= 12; seed++)
        {
            Random random = new(seed), death = new(seed);
            BackEndDisk disk = new(DiskBytes);
            int deaths = 0;
            using BlkBench bench = new(s_quick, disk, prepare: end =>
            {
                end.KeepsBack = 3;
                end.Dies = () => deaths < 8 && death.Next(60) == 0 && Interlocked.Increment(ref deaths) > 0; // pauses grow
            });
            byte[] expected = new byte[DiskBytes];
            Dictionary<uint, int> inFlight = []; // slots by their heads
            int posted = 0, completed = 0;
            while (completed < 200)
            {
                while (inFlight.Count < 8 && posted < 200)
                {
                    int slot = Enumerable.Range(0, 8).First(s => !inFlight.ContainsValue(s)), sector = posted++;
                    byte fill = (byte)random.Next(1, 256);
                    expected.AsSpan(sector * 512, 512).Fill(fill);
                    Assert.True(inFlight.TryAdd(bench.Write(0, slot, sector, fill), slot), $"seed {seed}: a head is used twice");
                }

                bench.Keeps(posted == 200 ? 0 : 3);
                (uint head, _) = bench.Guest.WaitUsed(0);
                Assert.True(inFlight.Remove(head, out int done), $"seed {seed}: head {head} is completed, and was not in flight");
                Assert.Equal(0, bench.Status(done));
                completed++;
            }

            Assert.Equal(expected, disk.Content);
            Assert.Null(bench.Guest.NeedsReset);
            Assert.True(deaths > 0, $"seed {seed}: nobody died");
            Assert.Null(bench.Failure);
        }
    }

    [Fact]
    public void Without_a_record_the_device_goes_on_when_nothing_was_in_flight_and_needs_a_reset_otherwise()
    {
        using BlkBench bench = new(s_quick, new BackEndDisk(DiskBytes), withoutRecord: true);
        bench.Write(0, 0, 3, 7);
        Assert.Equal(0, bench.WaitStatus(0, 0));
        BlkBackEnd first = bench.End;
        bench.Kill();
        Assert.True(SpinWait.SpinUntil(() => bench.End != first && bench.End.Serves, 20_000));
        bench.Read(0, 1, 3);
        Assert.Equal(0, bench.WaitStatus(0, 1));
        Assert.All(bench.Data(1).ToArray(), b => Assert.Equal(7, b));
        bench.Keeps(1);
        bench.Write(0, 2, 4, 8);
        bench.Kill();
        Assert.Contains("not known", bench.Guest.WaitNeedsReset(), StringComparison.Ordinal);
        bench.Keeps(0);
        bench.Device.Reset();
        bench.Guest.Activate(RingBits);
        bench.Read(0, 3, 3);
        Assert.Equal(0, bench.WaitStatus(0, 3));
    }

    [Fact]
    public void A_hold_waits_for_what_was_taken_and_goes_on_with_another_back_end()
    {
        BackEndDisk disk = new(DiskBytes);
        using BlkBench bench = new(s_quick, disk);
        bench.Keeps(2);
        bench.Write(0, 0, 1, 1);
        bench.Write(0, 1, 2, 2);
        Assert.False(bench.Device.TryHold(TimeSpan.FromMilliseconds(100)));
        bench.Keeps(0);
        Assert.True(bench.Device.TryHold(TimeSpan.FromSeconds(20)));
        int served = disk.Served;
        Assert.Equal(2, served);
        bench.Write(0, 2, 3, 3);
        bench.Kill();
        Assert.True(SpinWait.SpinUntil(() => bench.Device is { IsConnected: true, Losses: 1 }, 20_000));
        Assert.Equal(served, disk.Served); // held
        bench.Device.Resume();
        Assert.Equal([0, 0, 0], new[] { bench.WaitStatus(0, 0), bench.WaitStatus(0, 1), bench.WaitStatus(0, 2) });
        Assert.Equal(3, disk.Served);
    }

    [Fact]
    public async Task A_ring_that_is_given_back_too_early_is_not_ours_before_all_of_it_is_complete()
    {
        (FakeBackEnd end, VhostUserBlk device, QueueGuest guest) = Fake();
        using (end)
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable);
            guest.MakeAvailable(0, 0);
            guest.MakeAvailable(0, 1);
            guest.PutUsed(0, 0, 0);
            end.Next[0] = 2;
            Task<bool> held = Task.Run(() => device.TryHold(TimeSpan.FromSeconds(20)));
            await Assert.ThrowsAsync<TimeoutException>(() => held.WaitAsync(TimeSpan.FromMilliseconds(300)));
            guest.PutUsed(0, 1, 1);
            Assert.True(await held);
        }
    }

    [Fact]
    public void A_record_that_does_not_fit_its_ring_needs_a_reset()
    {
        (FakeBackEnd end, VhostUserBlk _, QueueGuest guest) = Fake();
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable);
            using (SafeFileHandle record = new(Assert.Single(end.Wait(FakeBackEnd.SetRecord).Files).Number, ownsHandle: false))
            {
                Assert.ThrowsAny<Exception>(() => RandomAccess.SetLength(record, 0)); // memory that we have mapped keeps its size
                RandomAccess.Write(record, [1], 8); // its version: it is in use
                RandomAccess.Write(record, [1], 16 + (16 * 5)); // descriptor 5 is in flight, and the driver gave none
            }

            end.Dispose();
            Assert.Contains("not known", guest.WaitNeedsReset(), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_disk_that_grows_is_told_of_and_one_that_is_another_is_refused()
    {
        BackEndDisk disk = new(DiskBytes) { Sectors = 100 };
        using BlkBench bench = new(s_quick, disk);
        bench.Write(0, 0, 1, 1);
        bench.WaitStatus(0, 0);
        disk.Sectors = 200;
        bench.End.TellConfigChanged();
        bench.Guest.Wait(() => bench.Guest.ConfigChanges == 1, "the driver does not hear of it");
        Assert.Equal(200UL, bench.Device.Sectors);
        disk.Sectors = 50;
        bench.Kill();
        Assert.True(SpinWait.SpinUntil(() => bench.IsNoted("50 sectors, and had 200"), 20_000));
        Assert.False(bench.Device.IsConnected);
        disk.Sectors = 200;
        Assert.True(SpinWait.SpinUntil(() => bench.Device.IsConnected, 40_000));
        bench.Read(0, 1, 1);
        Assert.Equal(0, bench.WaitStatus(0, 1));
    }

    [Fact]
    public void What_a_back_end_asks_that_is_no_request_makes_it_useless_and_what_we_do_not_offer_is_refused()
    {
        (FakeBackEnd end, VhostUserBlk device, QueueGuest guest) = Fake();
        using (end)
        using (guest)
        {
            end.Wait(FakeBackEnd.Enable);
            PacketSocket requests = new(Assert.Single(end.Wait(FakeBackEnd.SetRequests).Files));
            byte[] strange = FakeBackEnd.Reply(3, 0, flags: 1 | 8);
            requests.Send(strange, [], 1000);
            byte[] answer = new byte[20];
            Assert.True(SpinWait.SpinUntil(() => requests.Receive(answer, 0, out int n, out _) == PacketKind.Packet && n == 20, 20_000));
            Assert.Equal(3u, BinaryPrimitives.ReadUInt32LittleEndian(answer));
            Assert.Equal(1UL, BinaryPrimitives.ReadUInt64LittleEndian(answer.AsSpan(12)));
            Assert.True(device.IsConnected);
            requests.Send(new byte[12], [], 1000);
            Assert.True(SpinWait.SpinUntil(() => !device.IsConnected, 20_000));
        }
    }

    [Theory]
    [InlineData(20, 3u, "blocks of 3 bytes")]
    [InlineData(20, 0u, "blocks of 0 bytes")]
    [InlineData(20, 8192u, "blocks of 8192 bytes")]
    [InlineData(4, uint.MaxValue, "sectors, at most")]
    public void A_configuration_that_makes_no_disk_is_refused(int at, uint value, string problem)
    {
        VhostUserException refused = Assert.Throws<VhostUserException>(() => Fake(end =>
            BinaryPrimitives.WriteUInt32LittleEndian(end.Config.AsSpan(at), value)));
        Assert.Contains(problem, refused.Message, StringComparison.Ordinal);
        Assert.StartsWith("vhost-user-blk0: /the/socket: ", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_feature_whose_limit_makes_no_sense_is_not_offered()
    {
        (FakeBackEnd end, VhostUserBlk device, QueueGuest guest) = Fake(end =>
        {
            end.Config.AsSpan(8, 8).Clear(); // size_max, seg_max
            end.Config.AsSpan(36, 4).Clear(); // max_discard_sectors
            end.Config[24] = 200; // 2^200 logical blocks in a physical one
        });
        using (end)
        using (guest)
        {
            Assert.Equal(1UL << 14, device.DeviceFeatures & ((1 << 1) | (1 << 2) | (1 << 13) | (1UL << 14)));
            Assert.Equal(0, Word(device, 24) & 0xff);
        }
    }

    [Fact]
    public void A_back_end_without_what_is_needed_is_told()
    {
        Assert.Contains("does not tell its configuration", Refusal(end => end.Answer =
            r => r == FakeBackEnd.GetProtocol ? FakeBackEnd.Reply(r, 9) : null), StringComparison.Ordinal);
        Assert.Contains("it refuses GetConfig", Refusal(end => end.Answer =
            r => r == FakeBackEnd.GetConfig ? FakeBackEnd.Reply(r, 0, length: 0)[..12] : null), StringComparison.Ordinal);
        Assert.Contains("another part", Refusal(end => end.Answer = r => r == FakeBackEnd.GetConfig
            ? [.. FakeBackEnd.Reply(r, 0, length: 72)[..12], .. Enumerable.Repeat((byte)1, 72)] : null), StringComparison.Ordinal);
        Assert.Contains("lacks features", Refusal(end => end.Features = 1UL << 30), StringComparison.Ordinal);

        static string Refusal(Action<FakeBackEnd> prepare) => Assert.Throws<VhostUserException>(() => Fake(prepare)).Message;
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    [Trait("Kind", "fuzz")]
    public void Nonsense_in_rings_keeps_no_reset_from_coming_back(bool isThere)
    {
        (FakeBackEnd end, VhostUserLink link) = FakeBackEnd.Connect(
            s_quick with { StopPatience = TimeSpan.FromMilliseconds(5), Connect = null }, VhostUserBlk.Needs(1, Size), Sound);
        if (!isThere)
        {
            end.Dispose();
        }

        QueueFuzz.Run(new VhostUserBlk("vhost-user-blk0", "/the/socket", 1, Size, link, []), seed: 7);
        end.Dispose();
    }

    [Fact]
    public void It_is_not_saved_and_says_why()
    {
        using BlkBench bench = new(s_quick, new BackEndDisk(DiskBytes));
        Assert.Contains("the disk behind /the/socket", Assert.Throws<StateException>(bench.Device.ThrowIfSaved).Message,
            StringComparison.Ordinal);
    }

    private static int Word(VhostUserBlk device, int at)
    {
        byte[] bytes = new byte[4];
        device.ReadConfig(at, bytes.AsSpan(0, at is 34 ? 2 : 4));
        return BinaryPrimitives.ReadInt32LittleEndian(bytes);
    }

    private static void Sound(FakeBackEnd end)
    {
        end.Features = RingBits | (1UL << 30) | 0x7e46;
        end.Config = new byte[60];
        BinaryPrimitives.WriteUInt64LittleEndian(end.Config, DiskBytes / 512);
        BinaryPrimitives.WriteUInt32LittleEndian(end.Config.AsSpan(8), 1 << 16);
        foreach (int at in new[] { 12, 36, 40, 48, 52 })
        {
            BinaryPrimitives.WriteUInt32LittleEndian(end.Config.AsSpan(at), 32);
        }

        BinaryPrimitives.WriteUInt32LittleEndian(end.Config.AsSpan(20), 512);
    }

    private static (FakeBackEnd End, VhostUserBlk Device, QueueGuest Guest) Fake(Action<FakeBackEnd>? prepare = null)
    {
        (FakeBackEnd end, VhostUserLink link) = FakeBackEnd.Connect(s_quick, VhostUserBlk.Needs(1, Size), end =>
        {
            Sound(end);
            prepare?.Invoke(end);
        });
        List<MemoryExtent> memory = [];
        try
        {
            VhostUserBlk device = new("vhost-user-blk0", "/the/socket", 1, Size, link, memory);
            QueueGuest guest = new(device, activate: false);
            memory.Add(guest.Extent);
            guest.Activate(RingBits);
            return (end, device, guest);
        }
        catch
        {
            end.Dispose();
            throw;
        }
    }
}
