using System.Buffers.Binary;
using Vmm.Storage;

namespace Vmm.Hostile.Tests;

/// <summary>
/// Drivers that abuse a disk (virtio 1.2 section 5.2.6). Each request has an exact answer, and none reaches what lies beside the disk or
/// the buffers.
/// </summary>
public sealed class BlkTests : IDisposable
{
    private const byte Ok = 0, IoError = 1, Unsupported = 2, Untouched = 0xEE;
    private const uint In = 0, Out = 1, Flush = 4, GetId = 8, Discard = 11, WriteZeroes = 13;
    private const ulong Header = DeviceGuest.Data, Body = DeviceGuest.Data + 0x1000, State = DeviceGuest.Data + 0x7000;
    private const ulong End = BlkBench.Sectors;
    private readonly BlkBench _bench = new();
    private readonly DeviceGuest _guest;
    private readonly byte[] _content;

    public BlkTests()
    {
        _guest = new DeviceGuest(_bench.Device, TransportKind.Pci);
        _guest.Start();
        _content = [.. _bench.Content.Content];
    }

    public void Dispose()
    {
        _bench.Disk.Answer = DiskStatus.Ok;
        Assert.Equal(0, _bench.Disk.Outside);
        _bench.Heal(_guest);
        _guest.Dispose();
        _bench.Dispose();
    }

    /// <summary>
    /// Sectors and lengths of reads and writes: what is not wholly on the disk, or no whole sectors, is an error and touches nothing
    /// (5.2.6.2).
    /// </summary>
    public static TheoryData<uint, ulong, int, byte> Ranges
    {
        get
        {
            TheoryData<uint, ulong, int, byte> data = [];
            foreach (uint type in (uint[])[In, Out])
            {
                foreach ((ulong sector, int length, byte status) in ((ulong, int, byte)[])
                [
                    (0, 512, Ok), (End - 1, 512, Ok), (End - 8, 4096, Ok), (0, 16384, Ok), (End, 0, Ok), (0, 0, Ok),
                    (End, 512, IoError), (End - 1, 1024, IoError), (End + 1, 0, IoError), (End * 2, 512, IoError),
                    (uint.MaxValue, 512, IoError),
                    (ulong.MaxValue, 512, IoError), (ulong.MaxValue, 0, IoError), (ulong.MaxValue / 512, 512, IoError),
                    ((ulong.MaxValue / 512) + 1, 512, IoError),
                    (1UL << 63, 512, IoError), (1UL << 55, 512, IoError), (ulong.MaxValue - 6, 4096, IoError), (0, 1, IoError),
                    (0, 511, IoError), (0, 513, IoError), (0, 1000, IoError),
                    (3, 516, IoError), (End - 1, 513, IoError),
                ])
                {
                    data.Add(type, sector, length, status);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Ranges))]
    public void Range(uint type, ulong sector, int length, byte status)
    {
        _guest.At(Body, 16384 + 512).Fill(0x3C);
        bool read = type == In;
        (byte answer, uint written) = Ask(type, sector, length == 0 ? [] : [new(Body, (uint)length, read)]);
        Assert.Equal((status, status == Ok && read ? (uint)length + 1 : 1), (answer, written));
        int moved = status == Ok ? length : 0;
        Span<byte> disk = status == Ok ? _bench.Content.Content.AsSpan((int)sector * 512, moved) : [];
        if (read)
        {
            Assert.True(_guest.At(Body, moved).SequenceEqual(disk));
            Assert.Equal(-1, _guest.At(Body + (ulong)moved, 512).IndexOfAnyExcept((byte)0x3C));
            Assert.Equal(_content, _bench.Content.Content);
        }
        else
        {
            Assert.Equal(-1, disk.IndexOfAnyExcept((byte)0x3C));
            Assert.True(_bench.Content.Content.AsSpan(0, status == Ok ? (int)sector * 512 : _content.Length)
                .SequenceEqual(_content.AsSpan(0, status == Ok ? (int)sector * 512 : _content.Length)));
        }
    }

    /// <summary>Types that there are not are unsupported, whatever comes with them (5.2.6.1).</summary>
    [Theory]
    [InlineData(2u)]
    [InlineData(3u)]
    [InlineData(5u)]
    [InlineData(6u)]
    [InlineData(7u)]
    [InlineData(9u)]
    [InlineData(10u)]
    [InlineData(12u)]
    [InlineData(14u)]
    [InlineData(15u)]
    [InlineData(0x100u)]
    [InlineData(0x8000_0000u)]
    [InlineData(0x8000_0001u)]
    [InlineData(uint.MaxValue)]
    public void Unknown_type(uint type)
    {
        foreach (Piece[] data in (Piece[][])[[], [new(Body, 512, false)], [new(Body, 512, true)]])
        {
            Assert.Equal((Unsupported, 1u), Ask(type, 0, data));
        }

        Assert.Equal(_content, _bench.Content.Content);
    }

    /// <summary>Ranges of discard and write-zeroes: sector, sectors, flags, bytes of the segment.</summary>
    [Theory]
    [InlineData(Discard, 0UL, 8u, 0u, 16, Ok)]
    [InlineData(Discard, 0UL, 128u, 0u, 16, Ok)]
    [InlineData(Discard, 0UL, 0u, 0u, 16, Ok)]
    [InlineData(Discard, End, 0u, 0u, 16, Ok)]
    [InlineData(Discard, End, 1u, 0u, 16, IoError)]
    [InlineData(Discard, End - 1, 2u, 0u, 16, IoError)]
    [InlineData(Discard, 0UL, 129u, 0u, 16, IoError)]
    [InlineData(Discard, 0UL, uint.MaxValue, 0u, 16, IoError)]
    [InlineData(Discard, ulong.MaxValue, 1u, 0u, 16, IoError)]
    [InlineData(Discard, ulong.MaxValue, 2u, 0u, 16, IoError)]
    [InlineData(Discard, 1UL << 55, 1u, 0u, 16, IoError)]
    [InlineData(Discard, 0UL, 8u, 1u, 16, Unsupported)]
    [InlineData(Discard, 0UL, 8u, 2u, 16, Unsupported)]
    [InlineData(Discard, 0UL, 8u, uint.MaxValue, 16, Unsupported)]
    [InlineData(Discard, 0UL, 8u, 0u, 15, IoError)]
    [InlineData(Discard, 0UL, 8u, 0u, 17, IoError)]
    [InlineData(Discard, 0UL, 8u, 0u, 32, Ok)] // the second segment is empty
    [InlineData(Discard, 0UL, 8u, 0u, 17 * 16, IoError)]
    [InlineData(Discard, 0UL, 8u, 0u, 1, IoError)]
    [InlineData(Discard, 0UL, 8u, 0u, 0, IoError)]
    [InlineData(WriteZeroes, 0UL, 8u, 0u, 16, Ok)]
    [InlineData(WriteZeroes, 0UL, 8u, 1u, 16, Ok)]
    [InlineData(WriteZeroes, 0UL, 0u, 0u, 16, Ok)]
    [InlineData(WriteZeroes, End, 1u, 0u, 16, IoError)]
    [InlineData(WriteZeroes, End - 1, 2u, 1u, 16, IoError)]
    [InlineData(WriteZeroes, 0UL, 65537u, 0u, 16, IoError)]
    [InlineData(WriteZeroes, 0UL, uint.MaxValue, 0u, 16, IoError)]
    [InlineData(WriteZeroes, ulong.MaxValue, 1u, 0u, 16, IoError)]
    [InlineData(WriteZeroes, 0UL, 8u, 2u, 16, Unsupported)]
    [InlineData(WriteZeroes, 0UL, 8u, 0x8000_0000u, 16, Unsupported)]
    [InlineData(WriteZeroes, 0UL, 8u, 0u, 8, IoError)]
    [InlineData(WriteZeroes, 0UL, 8u, 0u, 48, Ok)]
    [InlineData(WriteZeroes, 0UL, 8u, 0u, 17 * 16, IoError)]
    [InlineData(WriteZeroes, 0UL, 8u, 0u, 40, IoError)]
    [InlineData(WriteZeroes, 0UL, 8u, 0u, 0, IoError)]
    public void Segment(uint type, ulong sector, uint sectors, uint flags, int length, byte status)
    {
        Span<byte> range = _guest.At(Body, 64);
        range.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(range, sector);
        BinaryPrimitives.WriteUInt32LittleEndian(range[8..], sectors);
        BinaryPrimitives.WriteUInt32LittleEndian(range[12..], flags);
        Assert.Equal((status, 1u), Ask(type, 0, length == 0 ? [] : [new(Body, (uint)length, false)]));
        if (status == Ok)
        {
            Assert.Equal(-1, _bench.Content.Content.AsSpan((int)sector * 512, (int)sectors * 512).IndexOfAnyExcept((byte)0));
        }
        else
        {
            Assert.Equal(_content, _bench.Content.Content);
        }
    }

    /// <summary>5.2.6.2: commands of features that were not accepted are unsupported.</summary>
    [Theory]
    [InlineData(Discard, 13)]
    [InlineData(WriteZeroes, 14)]
    public void Without_its_feature_a_command_is_unsupported(uint type, int bit)
    {
        _guest.Features &= ~(1UL << bit);
        _guest.Start();
        _guest.At(Body, 16).Clear();
        _guest.At(Body + 8, 1)[0] = 8;
        Assert.Equal((Unsupported, 1u), Ask(type, 0, [new(Body, 16, false)]));
        Assert.Equal(_content, _bench.Content.Content);
    }

    /// <summary>
    /// Data that goes the other way than the type says is none (5.2.6): a read with readable data reads nothing, a write with writable data
    /// writes nothing.
    /// </summary>
    [Theory]
    [InlineData(In, false, Ok)]
    [InlineData(Out, true, Ok)]
    [InlineData(Discard, true, IoError)]
    [InlineData(WriteZeroes, true, IoError)]
    public void The_wrong_way(uint type, bool writable, byte status)
    {
        _guest.At(Body, 512).Fill(0x77);
        Assert.Equal((status, 1u), Ask(type, 0, [new(Body, 512, writable)]));
        Assert.Equal(-1, _guest.At(Body, 512).IndexOfAnyExcept((byte)0x77));
        Assert.Equal(_content, _bench.Content.Content);
    }

    /// <summary>The identity is 20 bytes at most, whatever room there is, in any pieces (5.2.6.1).</summary>
    [Theory]
    [InlineData(0, 1u)]
    [InlineData(1, 2u)]
    [InlineData(19, 20u)]
    [InlineData(20, 21u)]
    [InlineData(21, 21u)]
    [InlineData(4096, 21u)]
    public void Identity(int room, uint written)
    {
        _guest.At(Body, 4200).Fill(0x77);
        Assert.Equal((Ok, written), Ask(GetId, ulong.MaxValue, room == 0 ? [] : [new(Body, (uint)room, true)]));
        ReadOnlySpan<byte> id = "hostile\0\0\0\0\0\0\0\0\0\0\0\0\0"u8;
        int given = (int)written - 1;
        Assert.True(_guest.At(Body, given).SequenceEqual(id[..given]));
        Assert.Equal(-1, _guest.At(Body + (ulong)given, 64).IndexOfAnyExcept((byte)0x77));
    }

    /// <summary>A flush takes no data and looks at none, nor at its sector.</summary>
    [Theory]
    [InlineData(0UL, 0, false)]
    [InlineData(ulong.MaxValue, 0, false)]
    [InlineData(0UL, 512, false)]
    [InlineData(0UL, 513, true)]
    public void Flush_with_anything(ulong sector, int length, bool writable)
    {
        _guest.At(Body, 600).Fill(0x77);
        int before = _bench.Disk.Flushes;
        Assert.Equal((Ok, 1u), Ask(Flush, sector, length == 0 ? [] : [new(Body, (uint)length, writable)]));
        Assert.Equal(before + 1, _bench.Disk.Flushes);
        Assert.Equal(-1, _guest.At(Body, 600).IndexOfAnyExcept((byte)0x77));
    }

    public static TheoryData<string, Piece[]> Shapes => new()
    {
        { "no header", [new(State, 1, true)] },
        { "a header of 15 bytes", [new(Header, 15, false), new(State, 1, true)] },
        { "a header of one byte", [new(Header, 1, false), new(Body, 512, true), new(State, 1, true)] },
        { "a header that the device writes", [new(Header, 16, true), new(State, 1, true)] },
        { "no status", [new(Header, 16, false)] },
        { "no status behind readable data", [new(Header, 16, false), new(Body, 512, false)] },
        { "a status that the device reads", [new(Header, 16, false), new(State, 1, false)] },
        { "the status before the header", [new(State, 1, true), new(Header, 16, false)] },
    };

    /// <summary>A chain that is no request at all: there is no place for an answer.</summary>
    [Theory]
    [MemberData(nameof(Shapes))]
    public void No_request(string shape, Piece[] chain)
    {
        Assert.NotEmpty(shape);
        PutHeader(Out, 0);
        _guest.Watch();
        _guest.Lay(_guest.Plans[0].Table, 0, chain);
        _guest.Offer(0, 0);
        _guest.Watch();
        _guest.Kick(0);
        Assert.Contains("malformed", _guest.WaitNeedsReset(), StringComparison.Ordinal);
        _guest.AssertContained();
        Assert.Equal(_content, _bench.Content.Content);
    }

    /// <summary>2.7.4.1: no assumption about framing. Header, data and status in any pieces are the same request.</summary>
    [Theory]
    [InlineData(1, 15, 512, false)]
    [InlineData(8, 8, 1, false)]
    [InlineData(15, 1, 511, false)]
    [InlineData(16, 0, 512, true)]
    [InlineData(4, 12, 100, true)]
    public void Any_framing(int first, int second, int data, bool statusWithData)
    {
        PutHeader(In, 3);
        List<Piece> chain = [new(Header, (uint)first, false)];
        if (second > 0)
        {
            chain.Add(new(Header + (ulong)first, (uint)second, false));
        }

        if (data < 512)
        {
            chain.Add(new(Body, (uint)data, true));
        }

        ulong status = statusWithData ? Body + 512 : State;
        uint rest = 512 - (data < 512 ? (uint)data : 0);
        chain.Add(new(Body + 512 - rest, statusWithData ? rest + 1 : rest, true));
        if (!statusWithData)
        {
            chain.Add(new(State, 1, true));
        }

        _guest.At(status, 1)[0] = Untouched;
        Assert.Equal(513u, _guest.Request(0, [.. chain]));
        Assert.Equal(Ok, _guest.At(status, 1)[0]);
        Assert.True(_guest.At(Body, 512).SequenceEqual(_content.AsSpan(3 * 512, 512)));
    }

    /// <summary>The status is the last writable byte (5.2.6), also of a large last buffer.</summary>
    [Theory]
    [InlineData(513)]
    [InlineData(1025)]
    public void The_status_is_the_last_byte(int length)
    {
        PutHeader(In, 0);
        _guest.At(Body, 2048).Fill(Untouched);
        Assert.Equal((uint)length, _guest.Request(0, new Piece(Header, 16, false), new Piece(Body, (uint)length, true)));
        Assert.Equal((Ok, Untouched), (_guest.At(Body + (ulong)length - 1, 1)[0], _guest.At(Body + (ulong)length, 1)[0]));
    }

    /// <summary>What the back end fails at is an error status, and the next request is served.</summary>
    [Theory]
    [InlineData(In, DiskStatus.IoError, IoError)]
    [InlineData(Out, DiskStatus.IoError, IoError)]
    [InlineData(Flush, DiskStatus.IoError, IoError)]
    [InlineData(Out, DiskStatus.NotSupported, Unsupported)]
    public void A_failing_disk(uint type, DiskStatus failure, byte status)
    {
        _bench.Disk.Answer = failure;
        Assert.Equal((status, 1u), Ask(type, 0, type == Flush ? [] : [new(Body, 512, type == In)]));
        _bench.Disk.Answer = DiskStatus.Ok;
        _bench.Serve(_guest, 1);
    }

    [Theory]
    [InlineData(Out)]
    [InlineData(Discard)]
    [InlineData(WriteZeroes)]
    public void A_read_only_disk_is_not_changed(uint type)
    {
        using BlkBench bench = new(1, readOnly: true);
        using DeviceGuest guest = new(bench.Device, TransportKind.Mmio);
        guest.Start();
        guest.At(Body, 512).Clear();
        guest.At(Body + 8, 1)[0] = 1;
        (byte status, _) = Ask(guest, type, 0, [new(Body, type == Out ? 512u : 16, false)]);
        Assert.Equal(type == Out ? IoError : Unsupported, status); // discard and write-zeroes are not even offered (5.2.3)
        Assert.Equal(_content, bench.Content.Content);
        bench.Heal(guest);
    }

    /// <summary>Buffers that are the same, or that overlap, are the driver's own harm.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(8)]
    [InlineData(256)]
    public void Overlapping_buffers_read_what_the_last_one_says(int shift)
    {
        PutHeader(In, 2);
        _guest.At(State, 1)[0] = Untouched;
        Assert.Equal(1025u, _guest.Request(
            0, new(Header, 16, false), new Piece(Body, 512, true), new Piece(Body + (ulong)shift, 512, true), new Piece(State, 1, true)));
        Assert.Equal(Ok, _guest.At(State, 1)[0]);
        Assert.True(_guest.At(Body + (ulong)shift, 512).SequenceEqual(_content.AsSpan(3 * 512, 512)));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Data_into_the_rings_themselves_is_contained(bool table)
    {
        PutHeader(In, 0);
        ulong at = table ? _guest.Plans[0].Table : _guest.Plans[0].Avail;
        _guest.Post(0, new(Header, 16, false), new Piece(at, 512, true), new Piece(State, 1, true));
        Thread.Sleep(5);
        Assert.InRange(_guest.At(State, 1)[0], Ok, (byte)0xFF);
    }

    /// <summary>More pieces than SEG_MAX, in an indirect table as long as the queue: an error, not a ring that is broken.</summary>
    [Theory]
    [InlineData(12, Ok)]
    [InlineData(14, Ok)]
    public void Many_pieces(int pieces, byte status)
    {
        PutHeader(Out, 0);
        List<Piece> chain = [new(Header, 16, false)];
        for (int i = 0; i < pieces; i++)
        {
            chain.Add(new(Body + (512 * (ulong)i), 512, false));
        }

        chain.Add(new(State, 1, true));
        Assert.Equal(1u, _guest.Request(0, [.. chain]));
        Assert.Equal(status, _guest.At(State, 1)[0]);
    }

    /// <summary>Both queues at once with the same buffers, and resets among them, end in order.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(5)]
    public void A_reset_waits_for_what_is_in_flight(int delay)
    {
        _bench.Disk.DelayRounds = delay * 200;
        for (int i = 0; i < 5; i++)
        {
            for (int queue = 0; queue < 2; queue++)
            {
                _guest.Post(queue, _bench.Good(_guest, queue));
            }

            _guest.Port.Status = 0;
            _guest.Watch();
            Thread.Sleep(2);
            _guest.AssertContained();
            _guest.Start();
        }

        _bench.Disk.DelayRounds = 0;
    }

    /// <summary>Configuration writes (5.2.4): the write-back byte takes a value, everything else takes none.</summary>
    [Theory]
    [InlineData(0, 8)]
    [InlineData(12, 4)]
    [InlineData(20, 4)]
    [InlineData(33, 1)]
    [InlineData(36, 8)]
    [InlineData(56, 4)]
    public void The_configuration_is_not_written(int offset, int length)
    {
        byte[] before = new byte[length], after = new byte[length];
        _guest.Port.ReadConfig(offset, before);
        _guest.Port.WriteConfig(offset, new byte[] { 255, 254, 253, 252, 251, 250, 249, 248 }.AsSpan(0, length));
        _guest.Port.ReadConfig(offset, after);
        Assert.Equal(before, after);
    }

    [Theory]
    [InlineData(32, 1, 0)]
    [InlineData(32, 1, 200)]
    [InlineData(30, 4, 0)]
    public void Write_through_flushes_after_each_write_and_a_reset_forgets_it(int offset, int length, byte value)
    {
        byte[] data = new byte[length];
        data.AsSpan().Fill(value);
        _guest.Port.WriteConfig(offset, data);
        int before = _bench.Disk.Flushes;
        Assert.Equal((Ok, 1u), Ask(Out, 0, [new(Body, 512, false)]));
        Assert.Equal(before + (value == 0 ? 1 : 0), _bench.Disk.Flushes);
        _guest.Start();
        before = _bench.Disk.Flushes;
        Assert.Equal((Ok, 1u), Ask(Out, 0, [new(Body, 512, false)]));
        Assert.Equal(before, _bench.Disk.Flushes);
    }

    private void PutHeader(uint type, ulong sector) => PutHeader(_guest, type, sector);

    private static void PutHeader(DeviceGuest guest, uint type, ulong sector)
    {
        Span<byte> header = guest.At(Header, 16);
        BinaryPrimitives.WriteUInt32LittleEndian(header, type);
        BinaryPrimitives.WriteUInt32LittleEndian(header[4..], 0xDEAD_BEEF); // reserved: not looked at
        BinaryPrimitives.WriteUInt64LittleEndian(header[8..], sector);
    }

    private (byte Status, uint Written) Ask(uint type, ulong sector, Piece[] data) => Ask(_guest, type, sector, data);

    private static (byte Status, uint Written) Ask(DeviceGuest guest, uint type, ulong sector, Piece[] data)
    {
        PutHeader(guest, type, sector);
        guest.At(State, 1)[0] = Untouched;
        uint written = guest.Request(0, [new(Header, 16, false), .. data, new(State, 1, true)]);
        return (guest.At(State, 1)[0], written);
    }
}
