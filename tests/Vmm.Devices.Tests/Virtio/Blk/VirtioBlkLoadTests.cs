using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Io;
using Vmm.Storage;

namespace Vmm.Devices.Tests.Virtio.Blk;

public sealed class VirtioBlkLoadTests
{
    private const int Capacity = 1 << 20;

    [Theory]
    [InlineData("memory")]
    [InlineData("raw")]
    public void Random_requests_agree_with_a_model(string kind)
    {
        using DiskFile file = new();
        using BlkGuest guest = new(new VirtioBlk(kind == "raw" ? RawFileBackend.Open(file.Path) : new MemoryDiskBackend(Capacity)));
        byte[] model = new byte[Capacity];
        Random random = new(7);
        for (int i = 0; i < 400; i++)
        {
            int sectors = random.Next(1, 33), at = random.Next((Capacity / 512) - sectors), length = sectors * 512;
            ulong data = BlkGuest.Data + (ulong)random.Next(0, 4096); // mostly misaligned for O_DIRECT
            data = random.Next(2) == 0 ? data & ~511UL : data;
            switch (random.Next(5))
            {
                case 0 or 1:
                    random.NextBytes(guest.Ram(data, length));
                    guest.Ram(data, length).CopyTo(model.AsSpan(at * 512));
                    Assert.Equal(0, guest.Request(1, (ulong)at, data, length, false).Status);
                    break;
                case 2 or 3:
                    Assert.Equal(0, guest.Request(0, (ulong)at, data, length, true).Status);
                    Assert.True(guest.Ram(data, length).SequenceEqual(model.AsSpan(at * 512, length)), $"request {i}");
                    break;
                default:
                    Assert.Equal(0, guest.RequestRange(13, (ulong)at, (uint)sectors, (uint)random.Next(2)));
                    model.AsSpan(at * 512, length).Clear();
                    Assert.Equal(0, guest.Request(4, 0, 0, 0, false).Status);
                    break;
            }
        }
    }

    [Fact]
    public void Random_headers_and_chains_never_stop_the_device_for_good()
    {
        using BlkGuest guest = new(new VirtioBlk(new MemoryDiskBackend(Capacity)));
        Random random = new(99);
        int resets = 0;
        for (int i = 0; i < 3000; i++)
        {
            random.NextBytes(guest.Ram(0x4000, 64));
            guest.Ram(0x4000, 4).Clear();
            guest.Ram(0x4000, 1)[0] = (byte)random.Next(16);
            for (int d = 0; d < 6; d++)
            {
                ulong at = random.Next(6) switch
                {
                    0 => (ulong)random.NextInt64(),
                    1 => BlkGuest.RamBytes - 64,
                    _ => 0x4000 + (ulong)(random.Next(4) * 0x10000)
                };
                uint length = random.Next(5) switch { 0 => (uint)random.Next(), 1 => 16, 2 => 1, 3 => 512, _ => (uint)random.Next(2000) };
                guest.WriteDescriptor(d, at, length, (ushort)random.Next(random.Next(8) == 0 ? 65536 : 4), (ushort)(random.Next(8) == 0
                    ? random.Next(65536)
                    : d + 1));
            }

            guest.MakeAvailable(0);
            guest.Kick();
            SpinWait.SpinUntil(() => guest.NeedsReset is not null || guest.TryTakeUsed(out _, out _), 20_000);
            if (guest.NeedsReset is not null)
            {
                resets++;
                guest.Device.Reset();
                guest.Activate();
            }
        }

        Assert.InRange(resets, 1, 2999);
        guest.Device.Reset();
        guest.Activate();
        Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
    }

    [Fact]
    public void Reset_during_io_waits_for_it_and_touches_memory_no_more()
    {
        using DiskFile file = new();
        using BlkGuest guest = new(new VirtioBlk(RawFileBackend.Open(file.Path)));
        for (int round = 0; round < 60; round++)
        {
            for (int i = 0; i < 20; i++)
            {
                ulong header = guest.PutHeader((uint)(i % 2), (ulong)(i * 64), i), status = guest.PutStatus(i);
                guest.Post((header, 16, false), (BlkGuest.Data + ((ulong)i * 16384), 16384, i % 2 == 0), (status, 1, true));
            }

            guest.Kick();
            if (round % 3 != 0)
            {
                Thread.SpinWait(round * 200);
            }

            guest.Device.Reset();
            guest.Ram(BlkGuest.Data, 20 * 16384).Fill(0xcc);
            Thread.Yield();
            Assert.Equal(-1, guest.Ram(BlkGuest.Data, 20 * 16384).IndexOfAnyExcept((byte)0xcc));
            guest.Activate();
        }

        Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
    }

    [Fact]
    public void Slow_disks_still_answer_and_dispose_waits_for_them()
    {
        FaultyDisk disk = new(new MemoryDiskBackend(Capacity)) { DelayRounds = 200 };
        using BlkGuest guest = new(new VirtioBlk(disk));
        Assert.Equal(0, guest.Request(0, 0, BlkGuest.Data, 512, true).Status);
        guest.Device.Dispose();
        Assert.Equal(1, disk.Disposed);
    }

    [Theory]
    [InlineData("memory")]
    [InlineData("raw")]
    public void A_request_allocates_nothing(string kind)
    {
        using DiskFile file = new();
        using IDiskBackend disk = kind == "raw" ? RawFileBackend.Open(file.Path) : new MemoryDiskBackend(Capacity);
        VirtioBlk device = new(disk);
        using BlkGuest guest = new(device, activate: false);
        VirtioActivation activation = guest.Activation();
        using IoLoop loop = new(50);
        using BlkService service = new(device, disk, activation, [0], loop);
        // A path taken for the first time may load code once; a cost per request would show in every batch.
        long least = long.MaxValue;
        for (int batch = 0; batch < 5; batch++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            Round(100);
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }

        Assert.Equal(0, least);

        void Round(int count)
        {
            for (int i = 0; i < count; i++)
            {
                ulong header = guest.PutHeader((uint)(i % 2), (ulong)(i % 100)), status = guest.PutStatus();
                guest.Post((header, 16, false), (BlkGuest.Data, 4096, i % 2 == 0), (status, 1, true));
                while (!guest.TryTakeUsed(out _, out _))
                {
                    loop.RunOnce(service);
                }

                if (guest.Ram(status, 1)[0] != 0)
                {
                    Assert.Fail("request failed");
                }
            }
        }
    }

    private sealed class DiskFile : IDisposable
    {
        public DiskFile()
        {
            using FileStream file = File.Create(Path);
            file.SetLength(Capacity);
        }

        public string Path { get; } = System.IO.Path.Combine(AppContext.BaseDirectory, "blk-" + Guid.NewGuid().ToString("N") + ".img");

        public void Dispose() => File.Delete(Path);
    }
}
