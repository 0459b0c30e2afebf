using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Vmm.Devices.Virtio.Balloon;

namespace Vmm.Devices.Tests.Virtio.Balloon;

public sealed class VirtioBalloonTests
{
    private const ulong Frames = 0x80000, Body = 0x1000000;
    private const int FirstFrame = (int)(Body / 4096);

    [Fact]
    public void Inflated_pages_go_back_to_the_host_and_read_as_zeros()
    {
        using VirtioBalloon device = new();
        using QueueGuest guest = new(device);
        guest.Ram(Body, 1 << 20).Fill(0xA5);
        guest.Ram(Frames, 4096).Clear();
        long before = guest.ResidentPages;
        Send(guest, 0, Range(FirstFrame, 256));
        Assert.Equal(before - 256, guest.ResidentPages);
        Assert.Equal((1UL << 20, 1UL << 20, 0L), (device.Info().HeldBytes, device.Info().DiscardedBytes, device.Info().Refused));
        Assert.Equal(-1, guest.Ram(Body, 1 << 20).IndexOfAnyExcept((byte)0));
        Send(guest, 1, Range(FirstFrame, 100));
        Assert.Equal(156UL * 4096, device.Info().HeldBytes);
    }

    [Fact]
    public void Pages_in_any_order_that_come_twice_or_are_not_ram_are_harmless()
    {
        using VirtioBalloon device = new();
        using QueueGuest guest = new(device);
        guest.Ram(Body, 1 << 20).Fill(0xA5);
        uint[] frames =
        [
            .. Range(FirstFrame, 16).Reverse(), .. Range(FirstFrame + 8, 16), uint.MaxValue, QueueGuest.RamBytes / 4096,
            (QueueGuest.RamBytes / 4096) + 7, FirstFrame
        ];
        Send(guest, 0, frames);
        Send(guest, 0, frames);
        Assert.Equal((24UL * 4096, 0L), (device.Info().HeldBytes, device.Info().Refused));
        Assert.Equal(0xA5, guest.Ram(Body + (24 * 4096), 1)[0]);
        Send(guest, 1, [uint.MaxValue, 0, .. frames, .. frames]);
        Assert.Equal(0UL, device.Info().HeldBytes);
    }

    [Fact]
    public void A_run_over_the_end_of_ram_loses_only_what_is_ram()
    {
        using VirtioBalloon device = new();
        using QueueGuest guest = new(device);
        uint last = (QueueGuest.RamBytes / 4096) - 2;
        guest.Ram(last * 4096UL, 8192).Fill(1);
        Send(guest, 0, Range((int)last, 8));
        Assert.Equal((8192UL, 8192UL, 0L), (device.Info().HeldBytes, device.Info().DiscardedBytes, device.Info().Refused));
    }

    [Fact]
    public void Frames_beyond_the_limit_of_a_chain_are_not_looked_at()
    {
        using VirtioBalloon device = new();
        using QueueGuest guest = new(device);
        int bytes = 8 << 20;
        MemoryMarshal.Cast<byte, uint>(guest.Ram(Body, bytes)).Fill(FirstFrame);
        MemoryMarshal.Cast<byte, uint>(guest.Ram(Body, bytes))[BalloonQueues.MaxFramesPerChain] = FirstFrame + 1000;
        guest.Post(0, (Body, bytes, false));
        guest.WaitUsed(0);
        Assert.Equal(4096UL, device.Info().HeldBytes);
    }

    [Fact]
    public void Target_is_told_by_config_change_and_actual_is_read_back()
    {
        using VirtioBalloon device = new(new() { TargetBytes = 3 << 20 });
        using QueueGuest guest = new(device);
        Assert.Equal(768u, ReadConfig(device, 0));
        device.SetTarget((10 << 20) + 5000);
        Assert.Equal(1, guest.ConfigChanges);
        Assert.Equal(2561u, ReadConfig(device, 0));
        device.SetTarget(ulong.MaxValue);
        Assert.Equal(uint.MaxValue, ReadConfig(device, 0));
        // num_pages and the hint command are not the driver's
        device.WriteConfig(0, [1, 2, 3, 4, 0, 1, 0, 0, 9, 9, 9, 9, 7, 0, 0, 0, 5, 5]);
        Assert.Equal(
            (uint.MaxValue, 256u, 0u, 7u), (ReadConfig(device, 0), ReadConfig(device, 4), ReadConfig(device, 8), ReadConfig(device, 12)));
        Assert.Equal(1UL << 20, device.Info().ActualBytes);
        device.Reset();
        Assert.Equal(0UL, device.Info().ActualBytes);
    }

    [Fact]
    public void Statistics_come_when_asked_for_and_only_then()
    {
        using VirtioBalloon device = new();
        using QueueGuest guest = new(device);
        guest.Post(2, (Frames, 10, false)); // the driver's first buffer
        Statistic(guest, 0, 4, 1111);
        Assert.False(guest.TryTakeUsed(2, out _, out _));
        device.RequestStatistics();
        guest.WaitUsed(2);
        Statistic(guest, 0, 4, 123456);
        Statistic(guest, 1, 5, 999999);
        Statistic(guest, 2, 77, 1);
        Statistic(guest, 3, 4, 654321);
        guest.Post(2, (Frames, 43, false)); // the last three bytes are no whole entry
        guest.Wait(() => device.Info().Guest?.TotalBytes is not null, "no statistics");
        BalloonStatistics statistics = device.Info().Guest!;
        Assert.Equal((654321UL, 999999UL, null), (statistics.FreeBytes, statistics.TotalBytes, statistics.MajorFaults));
        Assert.False(guest.TryTakeUsed(2, out _, out _));
    }

    [Fact]
    public void A_poll_interval_asks_again_and_again()
    {
        using VirtioBalloon device = new(new() { StatisticsInterval = TimeSpan.FromMilliseconds(5) });
        using QueueGuest guest = new(device);
        for (ulong round = 1; round <= 5; round++)
        {
            Statistic(guest, 0, 4, round);
            guest.Post(2, (Frames, 10, false));
            guest.WaitUsed(2);
            Assert.Equal(round, device.Info().Guest!.FreeBytes);
        }
    }

    [Fact]
    public void A_second_statistics_buffer_breaks_the_rules()
    {
        using VirtioBalloon device = new();
        using QueueGuest guest = new(device);
        guest.Post(2, (Frames, 10, false));
        guest.Post(2, (Frames, 10, false));
        Assert.Contains("malformed", guest.WaitNeedsReset(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(ulong.MaxValue, 4)] // the specification's number
    [InlineData(ulong.MaxValue, 3)] // drivers that count only the queues they use
    [InlineData(~BalloonFeatures.Statistics, 2)]
    public void Reported_free_pages_are_discarded(ulong features, int queue)
    {
        using VirtioBalloon device = new();
        using QueueGuest guest = new(device, features, absent: [.. new[] { 2, 3, 4 }.Where(q => q > 2 && q != queue)]);
        guest.Ram(Body, 4 << 20).Fill(0xA5);
        long before = guest.ResidentPages;
        guest.Post(queue, (Body, 2 << 20, true), (Body + (3 << 20) + 100, 8192, true)); // the second has one whole page inside
        guest.WaitUsed(queue);
        Assert.Equal(before - 512 - 1, guest.ResidentPages);
        Assert.Equal((0UL, (2UL << 20) + 4096), (device.Info().HeldBytes, device.Info().DiscardedBytes));
        Assert.Equal(0xA5, guest.Ram(Body + (3 << 20) + 100, 1)[0]);
    }

    [Theory]
    [InlineData(~(BalloonFeatures.Statistics | BalloonFeatures.Reporting), 2)]
    [InlineData(~BalloonFeatures.Reporting, 3)]
    [InlineData(~BalloonFeatures.Reporting, 4)]
    [InlineData(~BalloonFeatures.Statistics, 3)] // reporting is 2 or 4 then
    [InlineData(ulong.MaxValue, 3)]              // and 4 when the driver has that one
    public void Nothing_is_taken_from_a_queue_of_a_feature_that_was_not_accepted(ulong features, int queue)
    {
        using VirtioBalloon device = new();
        using QueueGuest guest = new(device, features);
        guest.Ram(Body, 2 << 20).Fill(0xA5);
        guest.Post(queue, (Body, 2 << 20, true));
        Send(guest, 0, Range(FirstFrame, 1)); // served behind it, so that it had its turn
        Assert.False(guest.TryTakeUsed(queue, out _, out _));
        Assert.Equal((0UL, 0xA5), (device.Info().DiscardedBytes - 4096, guest.Ram(Body + 4096, 1)[0]));
    }

    [Fact]
    public void Poisoned_pages_keep_their_content()
    {
        using VirtioBalloon device = new();
        using QueueGuest guest = new(device);
        device.WriteConfig(12, [0xAA, 0xAA, 0xAA, 0xAA]);
        guest.Ram(Body, 4096).Fill(0xAA);
        guest.Post(4, (Body, 4096, true));
        guest.WaitUsed(4);
        Assert.Equal(0xAA, guest.Ram(Body, 1)[0]);
        Assert.Equal(0UL, device.Info().DiscardedBytes);
    }

    [Fact]
    public void Ranges_outside_ram_ask_for_a_reset_and_a_reset_heals()
    {
        using VirtioBalloon device = new();
        using QueueGuest guest = new(device);
        guest.Post(4, ((ulong)QueueGuest.RamBytes - 4096, 8192, true));
        Assert.Contains("balloon", guest.WaitNeedsReset(), StringComparison.Ordinal);
        device.Reset();
        guest.Activate();
        Send(guest, 0, Range(FirstFrame, 1));
        Assert.Equal(4096UL, device.Info().HeldBytes);
        device.Reset();
        Assert.Equal(0UL, device.Info().HeldBytes); // 5.5.6: after a reset every page is the driver's
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Nonsense_in_the_queues_never_hangs_or_throws()
    {
        using VirtioBalloon device = new(new() { StatisticsInterval = TimeSpan.FromMilliseconds(1) });
        QueueFuzz.Run(device, 505, (random, _) => device.SetTarget((ulong)random.NextInt64()));
    }

    private static uint[] Range(int first, int count) => [.. Enumerable.Range(first, count).Select(f => (uint)f)];

    private static void Send(QueueGuest guest, int queue, uint[] frames)
    {
        MemoryMarshal.AsBytes(frames.AsSpan()).CopyTo(guest.Ram(Frames, frames.Length * 4));
        guest.Post(queue, (Frames, frames.Length * 4, false));
        Assert.Equal(0u, guest.WaitUsed(queue).Written);
    }

    private static void Statistic(QueueGuest guest, int index, ushort tag, ulong value)
    {
        Span<byte> entry = guest.Ram(Frames + ((ulong)index * 10), 10);
        BinaryPrimitives.WriteUInt16LittleEndian(entry, tag);
        BinaryPrimitives.WriteUInt64LittleEndian(entry[2..], value);
    }

    private static uint ReadConfig(VirtioBalloon device, int offset)
    {
        Span<byte> raw = stackalloc byte[4];
        device.ReadConfig(offset, raw);
        return BinaryPrimitives.ReadUInt32LittleEndian(raw);
    }
}
