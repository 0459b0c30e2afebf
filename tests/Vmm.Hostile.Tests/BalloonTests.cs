using System.Buffers.Binary;

namespace Vmm.Hostile.Tests;

/// <summary>
/// Drivers that abuse a balloon (virtio 1.2 section 5.5). Whatever they say, only pages of their own RAM are taken, and only those they
/// named.
/// </summary>
public sealed class BalloonTests : IDisposable
{
    private const int Inflate = 0, Deflate = 1, Statistics = 2, Hints = 3, Report = 4;
    private const ulong List = DeviceGuest.Data, Body = DeviceGuest.Data + 0x40000;
    private const uint First = (uint)(Body >> 12), Pages = GuestRam.Bytes >> 12;
    private readonly BalloonBench _bench = new();
    private readonly DeviceGuest _guest;

    public BalloonTests() => _guest = new DeviceGuest(_bench.Device, TransportKind.Pci);

    public void Dispose()
    {
        _bench.Heal(_guest);
        _guest.Dispose();
        _bench.Dispose();
    }

    /// <summary>
    /// Lists of frame numbers: how many pages are in the balloon afterwards, and which of the guest's pages are gone (a first frame and a
    /// count).
    /// </summary>
    public static TheoryData<uint[], int, uint, int> Lists => new()
    {
        { [First], 1, First, 1 },
        { [First, First, First], 1, First, 1 },
        { [First + 2, First + 1, First], 3, First, 3 },
        { [Pages], 0, 0, 0 },
        { [Pages - 1], 1, Pages - 1, 1 },
        { [Pages - 1, Pages, Pages + 1], 1, Pages - 1, 1 },
        { [uint.MaxValue], 0, 0, 0 },
        { [uint.MaxValue, uint.MaxValue - 1], 0, 0, 0 },
        { [0x8000_0000], 0, 0, 0 },
        { [0x0010_0000, First], 1, First, 1 }, // 4 GiB, which is no RAM
        { [First, uint.MaxValue, First + 1], 2, First, 2 },
        { [], 0, 0, 0 },
    };

    [Theory]
    [MemberData(nameof(Lists))]
    public void Inflate_with_any_list(uint[] frames, int held, uint first, int count)
    {
        _guest.Start();
        for (int round = 0; round < 2; round++)
        {
            Put(frames);
            _guest.Watch();
            Send(Inflate, frames.Length * 4);
            Assert.Equal(((ulong)held * 4096, 0L), (_bench.Balloon.Info().HeldBytes, _bench.Balloon.Info().Refused));
            AssertGone(first, count);
        }
    }

    [Theory]
    [MemberData(nameof(Lists))]
    public void Deflate_with_any_list_takes_out_what_was_in(uint[] frames, int held, uint first, int count)
    {
        Assert.True(count == held);
        _guest.Start();
        Put([First, First + 1, First + 2, Pages - 1]);
        Send(Inflate, 16);
        _guest.Watch();
        Put(frames);
        _guest.Watch();
        Send(Deflate, frames.Length * 4);
        Assert.Equal((ulong)(4 - count) * 4096, _bench.Balloon.Info().HeldBytes);
        Assert.True(first <= Pages);
        _guest.AssertContained(); // giving back writes nothing
    }

    /// <summary>Bytes of a list that are no whole numbers are not looked at.</summary>
    [Theory]
    [InlineData(Inflate, 1, 0)]
    [InlineData(Inflate, 3, 0)]
    [InlineData(Inflate, 5, 1)]
    [InlineData(Inflate, 11, 2)]
    [InlineData(Inflate, 13, 3)]
    [InlineData(Deflate, 1, 0)]
    [InlineData(Deflate, 7, 1)]
    public void Half_a_number(int queue, int bytes, int pages)
    {
        _guest.Start();
        Put([First, First + 1, First + 2, First + 3]);
        if (queue == Deflate)
        {
            Send(Inflate, 16);
        }

        Send(queue, bytes);
        Assert.Equal((ulong)(queue == Deflate ? 4 - pages : pages) * 4096, _bench.Balloon.Info().HeldBytes);
    }

    /// <summary>A list that the device shall write is no list (5.5.6): nothing is taken, and the chain comes back.</summary>
    [Theory]
    [InlineData(Inflate)]
    [InlineData(Deflate)]
    public void A_writable_list_is_none(int queue)
    {
        _guest.Start();
        Put([First, First + 1]);
        _guest.Watch();
        Assert.Equal(0u, _guest.Request(queue, new Piece(List, 8, true)));
        Assert.Equal(0UL, _bench.Balloon.Info().HeldBytes);
        _guest.AssertContained();
    }

    /// <summary>The list, the rings, or the very page of the list given away: the driver harms itself only.</summary>
    [Theory]
    [InlineData(List)]
    [InlineData(0x1000UL)]
    [InlineData(0x2000UL)]
    [InlineData(0x3000UL)]
    [InlineData(0UL)]
    public void Its_own_structures_given_away(ulong page)
    {
        _guest.Start();
        Put([(uint)(page >> 12)]);
        _guest.Post(Inflate, new Piece(List, 4, false));
        _guest.Wait(() => _bench.Balloon.Info().HeldBytes == 4096, "the page is not taken");
        Assert.Equal(0, _guest.At(page + 0x800, 1)[0]);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(14)]
    public void All_of_memory_named_at_once(int chains)
    {
        _guest.Start();
        int bytes = 4 * (int)Pages / 2;
        for (uint i = 0; i < Pages / 2; i++)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(_guest.At(List + (4 * i), 4), (Pages / 2) + 1 + i);
        }

        for (int i = 0; i < chains; i++)
        {
            _guest.Request(Inflate, new Piece(List, (uint)bytes, false));
            for (uint k = 0; k < Pages / 2; k++)
            {
                BinaryPrimitives.WriteUInt32LittleEndian(_guest.At(List + (4 * k), 4), (Pages / 2) + 1 + k);
            }
        }

        Assert.Equal((ulong)((Pages / 2) - 1) * 4096, _bench.Balloon.Info().HeldBytes);
    }

    /// <summary>Statistics: bytes of the buffer, and whether they tell anything (5.5.6.4).</summary>
    [Theory]
    [InlineData(1, false)]
    [InlineData(2, false)]
    [InlineData(9, false)]
    [InlineData(10, true)]
    [InlineData(11, true)]
    [InlineData(100, true)]
    [InlineData(640, true)]
    [InlineData(4096, true)]
    public void Statistics_of_any_length(int bytes, bool told)
    {
        _guest.Start();
        _guest.At(List, 4096).Clear();
        _guest.At(List, 1)[0] = 4; // free memory
        _guest.At(List + 2, 1)[0] = 77;
        int head = _guest.Post(Statistics, new Piece(List, (uint)bytes, false));
        Settle();
        Assert.Equal(told, _bench.Balloon.Info().Guest is not null);
        _bench.Balloon.RequestStatistics();
        Assert.Equal(((uint)head, 0u), _guest.WaitUsed(Statistics));
    }

    /// <summary>Tags that nobody knows are skipped, of a tag that comes twice the last counts.</summary>
    [Theory]
    [InlineData(new byte[] { 0xFF, 0xFF, 10 }, false)]
    [InlineData(new byte[] { 4, 0x80, 10 }, false)]
    [InlineData(new byte[] { 4, 0, 10 }, true)]
    public void Statistics_of_any_tag(byte[] entry, bool told)
    {
        _guest.Start();
        _guest.At(List, 32).Clear();
        entry.CopyTo(_guest.At(List, 3));
        entry.CopyTo(_guest.At(List + 10, 3));
        _guest.At(List + 12, 1)[0] = 11;
        _guest.Post(Statistics, new Piece(List, 20, false));
        Settle();
        Assert.Equal(told ? (ulong?)11 : null, _bench.Balloon.Info().Guest?.FreeBytes);
    }

    /// <summary>5.5.6.4.1: one buffer at a time is the device's; a second one breaks the rules.</summary>
    [Fact]
    public void Two_statistics_buffers()
    {
        _guest.Start();
        _guest.Post(Statistics, new Piece(List, 10, false));
        _guest.Post(Statistics, new Piece(List + 64, 10, false));
        Assert.NotEmpty(_guest.WaitNeedsReset());
        Assert.Equal(0, _guest.UsedCount(Statistics));
    }

    [Fact]
    public void Questions_without_a_buffer_are_one_question()
    {
        _guest.Start();
        for (int i = 0; i < 100; i++)
        {
            _bench.Balloon.RequestStatistics();
        }

        int head = _guest.Post(Statistics, new Piece(List, 10, false));
        Assert.Equal(((uint)head, 0u), _guest.WaitUsed(Statistics));
        _guest.Post(Statistics, new Piece(List, 10, false));
        Settle();
        Assert.Equal(0, _guest.UsedCount(Statistics));
    }

    /// <summary>Reported ranges (5.5.6.7): whole pages inside go, parts of pages stay.</summary>
    [Theory]
    [InlineData(0, 4096, 0, 1)]
    [InlineData(0, 8192, 0, 2)]
    [InlineData(1, 4096, 0, 0)]
    [InlineData(1, 8190, 0, 0)]
    [InlineData(1, 8192, 1, 1)]
    [InlineData(4095, 4097, 1, 1)]
    [InlineData(0, 4095, 0, 0)]
    [InlineData(0, 1, 0, 0)]
    [InlineData(2048, 12288, 1, 2)]
    public void Report_of_any_range(int offset, int length, int first, int pages)
    {
        _guest.Start();
        _guest.Watch();
        Assert.Equal(0u, _guest.Request(Report, new Piece(Body + (ulong)offset, (uint)length, true)));
        AssertGone(First + (uint)first, pages);
        Assert.Equal(0UL, _bench.Balloon.Info().HeldBytes);
    }

    /// <summary>A report of the whole of RAM in one buffer takes the rings too: the driver's own harm.</summary>
    [Fact]
    public void Report_of_everything()
    {
        _guest.Start();
        _guest.Post(Report, new Piece(0, GuestRam.Bytes, true));
        _guest.Wait(() => _bench.Balloon.Info().DiscardedBytes >= GuestRam.Bytes, "nothing is discarded");
    }

    [Theory]
    [InlineData(Report, false)]
    [InlineData(Report, true)]
    public void A_readable_report_takes_nothing(int queue, bool mixed)
    {
        _guest.Start();
        _guest.Watch();
        Piece[] chain = mixed ? [new(Body, 4096, false), new(Body + 8192, 4096, true)] : [new(Body, 4096, false)];
        _guest.Post(queue, chain);
        _guest.Wait(() => _guest.UsedCount(queue) > 0 || _guest.Broken, "no answer");
        Assert.Equal(0xA5, _guest.At(Body + 3, 1)[0]); // what is readable stays
    }

    /// <summary>5.5.6.7.2: with a poison value the pages must keep it.</summary>
    [Theory]
    [InlineData(1u)]
    [InlineData(0xAAAA_AAAAu)]
    [InlineData(uint.MaxValue)]
    public void A_poisoned_report_takes_nothing(uint poison)
    {
        _guest.Start();
        _guest.Port.WriteConfig(12, BitConverter.GetBytes(poison));
        _guest.Watch();
        Assert.Equal(0u, _guest.Request(Report, new Piece(Body, 8192, true)));
        _guest.AssertContained();
    }

    /// <summary>5.5.2: queues of features that were not accepted do not exist. What lies there stays there.</summary>
    [Theory]
    [InlineData(1, Statistics, true)]
    [InlineData(5, Report, true)]
    [InlineData(0, Hints, false)]
    public void A_queue_of_a_feature_that_was_not_accepted(int bit, int queue, bool clear)
    {
        if (clear)
        {
            _guest.Features &= ~(1UL << bit);
        }

        _guest.Start();
        _guest.Post(queue, new Piece(Body, 8192, true));
        _guest.Watch();
        _guest.Kick(queue);
        Settle();
        Assert.Equal((0, false), (_guest.UsedCount(queue), _guest.Broken));
        Assert.Equal(0UL, _bench.Balloon.Info().DiscardedBytes);
    }

    /// <summary>5.5.4: what the device says is not written, what the driver says is.</summary>
    [Theory]
    [InlineData(0, false)]
    [InlineData(4, true)]
    [InlineData(8, false)]
    [InlineData(12, true)]
    public void The_configuration(int offset, bool writable)
    {
        _guest.Start();
        byte[] before = new byte[4], after = new byte[4];
        _guest.Port.ReadConfig(offset, before);
        _guest.Port.WriteConfig(offset, [1, 2, 3, 4]);
        _guest.Port.ReadConfig(offset, after);
        Assert.Equal(writable ? [1, 2, 3, 4] : before, after);
        _guest.Port.Status = 0;
        _guest.Port.ReadConfig(offset, after);
        Assert.Equal(new byte[4], after);
    }

    /// <summary>Writes over the borders of fields touch only what is the driver's.</summary>
    [Theory]
    [InlineData(2, 4)]
    [InlineData(3, 8)]
    [InlineData(7, 8)]
    [InlineData(0, 8)]
    [InlineData(14, 4)]
    public void Configuration_writes_over_borders(int offset, int length)
    {
        _guest.Start();
        byte[] data = new byte[length], config = new byte[16];
        data.AsSpan().Fill(0xFF);
        _guest.Port.WriteConfig(offset, data);
        _guest.Port.ReadConfig(0, config.AsSpan(0, 8));
        _guest.Port.ReadConfig(8, config.AsSpan(8, 8));
        Assert.Equal(new byte[8], (byte[])[.. config[..4], .. config[8..12]]);
        for (int i = 4; i < 16; i++)
        {
            bool own = i is < 8 or >= 12, hit = i >= offset && i < offset + length;
            Assert.Equal(own && hit ? 0xFF : 0, config[i]);
        }
    }

    private void Put(ReadOnlySpan<uint> frames)
    {
        for (int i = 0; i < frames.Length; i++)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(_guest.At(List + (4 * (ulong)i), 4), frames[i]);
        }
    }

    private void Send(int queue, int bytes) =>
        Assert.Equal(0u, _guest.Request(queue, bytes == 0 ? [new Piece(List, 1, false)] : [new Piece(List, (uint)bytes, false)]));

    /// <summary>The device has looked at its queues: one that it serves shows it.</summary>
    private void Settle()
    {
        Put([uint.MaxValue]);
        for (int i = 0; i < 2; i++)
        {
            _guest.Request(Deflate, new Piece(List, 4, false));
        }
    }

    private void AssertGone(uint first, int count)
    {
        _guest.AssertContained(new Piece(first * 4096UL, (uint)count * 4096, true));
        Assert.Equal(-1, _guest.At(first * 4096UL, count * 4096).IndexOfAnyExcept((byte)0));
        foreach (ref byte b in _guest.At(first * 4096UL, count * 4096))
        {
            b = 0xA5;
        }
    }
}
