using System.Buffers.Binary;
using Vmm.Memory;

namespace Vmm.Hostile.Tests;

/// <summary>Drivers that abuse memory that comes and goes (virtio 1.2 section 5.15).</summary>
public sealed class MemTests : IDisposable
{
    private const ushort Plug = 0, Unplug = 1, UnplugAll = 2, State = 3;
    private const ushort Ack = 0, Nack = 1, Busy = 2, Error = 3;
    private const ulong Start = MemBench.Start, Block = MemBench.Block, End = Start + (MemBench.Blocks * Block);
    private readonly MemBench _bench = new();
    private readonly DeviceGuest _guest;

    public MemTests()
    {
        _guest = new DeviceGuest(_bench.Device, TransportKind.Mmio);
        _guest.Start();
    }

    public void Dispose()
    {
        _bench.Heal(_guest);
        _guest.Dispose();
        _bench.Dispose();
    }

    /// <summary>
    /// With blocks 0 to 3 plugged and 32 wanted: each request, its answer, and what it did to the memory (5.15.6.2 to 5.15.6.5).
    /// </summary>
    [Theory]
    [InlineData(Plug, Start, 1, Error)] // plugged already
    [InlineData(Plug, Start + (3 * Block), 2, Error)] // partly plugged
    [InlineData(Plug, Start - Block, 1, Error)]
    [InlineData(Plug, Start - Block, 2, Error)]
    [InlineData(Plug, 0UL, 1, Error)]
    [InlineData(Plug, End, 1, Error)]
    [InlineData(Plug, End - Block, 2, Error)]
    [InlineData(Plug, ulong.MaxValue, 1, Error)]
    [InlineData(Plug, ulong.MaxValue - Block + 1, 1, Error)]
    [InlineData(Plug, ulong.MaxValue - Block + 1, 65535, Error)]
    [InlineData(Plug, Start + (8 * Block) + 1, 1, Error)]
    [InlineData(Plug, Start + (8 * Block) + 4096, 1, Error)]
    [InlineData(Plug, Start + (8 * Block) - 1, 1, Error)]
    [InlineData(Plug, Start + (8 * Block), 0, Error)]
    [InlineData(Plug, Start, 65535, Error)]
    [InlineData(Plug, Start + (4 * Block), 61, Error)]
    [InlineData(Plug, Start + (4 * Block), 29, Nack)] // one more than wanted
    [InlineData(Plug, Start + (4 * Block), 60, Nack)]
    [InlineData(Plug, Start + (4 * Block), 28, Ack)]
    [InlineData(Plug, End - Block, 1, Ack)]
    [InlineData(Unplug, Start + (4 * Block), 1, Error)]
    [InlineData(Unplug, Start + (3 * Block), 2, Error)]
    [InlineData(Unplug, Start, 5, Error)]
    [InlineData(Unplug, Start, 65535, Error)]
    [InlineData(Unplug, Start, 0, Error)]
    [InlineData(Unplug, Start + 1, 1, Error)]
    [InlineData(Unplug, Start - Block, 1, Error)]
    [InlineData(Unplug, Start - Block, 2, Error)]
    [InlineData(Unplug, End, 1, Error)]
    [InlineData(Unplug, 0UL, 1, Error)]
    [InlineData(Unplug, ulong.MaxValue - Block + 1, 2, Error)]
    [InlineData(Unplug, Start, 4, Ack)]
    [InlineData(Unplug, Start + Block, 2, Ack)]
    [InlineData(State, Start, 0, Error)]
    [InlineData(State, Start + 1, 1, Error)]
    [InlineData(State, Start - Block, 1, Error)]
    [InlineData(State, End, 1, Error)]
    [InlineData(State, End - Block, 2, Error)]
    [InlineData(State, Start, 65, Error)]
    [InlineData(State, Start, 65535, Error)]
    [InlineData(State, ulong.MaxValue, 1, Error)]
    [InlineData(4, Start, 1, Error)]
    [InlineData(0x100, Start, 1, Error)]
    [InlineData(0xFFFF, Start, 1, Error)]
    public void Request(ushort kind, ulong address, int blocks, ushort answer)
    {
        Assert.Equal((Ack, 0), Ask(Plug, Start, 4));
        _bench.Calls.Clear();
        _guest.Watch();
        Assert.Equal((answer, 0), Ask(kind, address, (ushort)blocks));
        bool done = answer == Ack && kind <= Unplug;
        Assert.Equal(done ? [$"{(kind == Plug ? '+' : '-')}{(address - Start) / Block}x{blocks}"] : (string[])[], _bench.Calls);
        int plugged = 4 + (done ? kind == Plug ? blocks : -blocks : 0);
        Assert.Equal((ulong)plugged * Block, _bench.Mem.Info.Plugged.Bytes);
        Assert.Equal((ulong)plugged * Block, Config(40));
    }

    [Theory]
    [InlineData(Start, 4, 0)]
    [InlineData(Start + (4 * Block), 1, 1)]
    [InlineData(Start + (3 * Block), 2, 2)]
    [InlineData(Start, MemBench.Blocks, 2)]
    [InlineData(End - Block, 1, 1)]
    public void State_of_a_range(ulong address, int blocks, int state)
    {
        Ask(Plug, Start, 4);
        Assert.Equal((Ack, state), Ask(State, address, (ushort)blocks));
    }

    /// <summary>Unplug-all looks at neither address nor count, and may be asked again.</summary>
    [Theory]
    [InlineData(0UL, 0)]
    [InlineData(ulong.MaxValue, 65535)]
    public void Unplug_all(ulong address, int blocks)
    {
        Ask(Plug, Start, 3);
        Ask(Plug, End - Block, 1);
        _bench.Calls.Clear();
        Assert.Equal((Ack, 0), Ask(UnplugAll, address, (ushort)blocks));
        Assert.Equal((Ack, 0), Ask(UnplugAll, address, (ushort)blocks));
        Assert.Equal(["-0x3", $"-{MemBench.Blocks - 1}x1"], _bench.Calls);
        Assert.Equal((Ack, 0), Ask(Plug, Start, 1));
    }

    [Fact]
    public void A_host_without_memory_is_busy_and_nothing_changed()
    {
        _bench.Full = true;
        Assert.Equal((Busy, 0), Ask(Plug, Start, 2));
        Assert.Equal((Ack, 1), Ask(State, Start, 2));
        _bench.Full = false;
        Assert.Equal((Ack, 0), Ask(Plug, Start, 2));
    }

    /// <summary>A host that wants less: nothing more is plugged, and what the guest has it may keep (5.15.6.2).</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(4)]
    public void More_than_wanted_is_refused_also_when_less_is_wanted_than_there_is(int wanted)
    {
        Ask(Plug, Start, 4);
        _bench.Mem.SetRequested(new ByteSize((ulong)wanted * Block));
        Assert.Equal((Nack, 0), Ask(Plug, Start + (8 * Block), 1));
        Assert.Equal(4 * Block, _bench.Mem.Info.Plugged.Bytes);
    }

    public static TheoryData<string, Piece[]> Shapes
    {
        get
        {
            ulong at = DeviceGuest.DataOf(0);
            return new()
            {
                { "a request of 23 bytes", [new(at, 23, false), new(at + 64, 10, true)] },
                { "a request of one byte", [new(at, 1, false), new(at + 64, 10, true)] },
                { "no request", [new(at + 64, 10, true)] },
                { "no room for an answer", [new(at, 24, false)] },
                { "room for 9 bytes", [new(at, 24, false), new(at + 64, 9, true)] },
                { "room for 8 bytes in pieces", [new(at, 24, false), new(at + 64, 4, true), new(at + 68, 4, true)] },
                { "the answer before the request", [new(at + 64, 10, true), new(at, 24, false)] },
            };
        }
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void No_request(string shape, Piece[] chain)
    {
        Assert.NotEmpty(shape);
        MemBench.Ask(_guest, Plug, Start, 1);
        _guest.Lay(_guest.Plans[0].Table, 0, chain);
        _guest.Offer(0, 0);
        _guest.Watch();
        _guest.Kick(0);
        Assert.NotEmpty(_guest.WaitNeedsReset());
        _guest.AssertContained();
        Assert.Empty(_bench.Calls);
    }

    /// <summary>2.7.4.1: request and answer in any pieces.</summary>
    [Theory]
    [InlineData(1, 1)]
    [InlineData(2, 3)]
    [InlineData(23, 9)]
    [InlineData(12, 5)]
    public void Any_framing(int requested, int answered)
    {
        ulong at = DeviceGuest.DataOf(0);
        MemBench.Ask(_guest, Plug, Start, 2);
        uint written = _guest.Request(0, new(at, (uint)requested, false), new Piece(at + (ulong)requested, (uint)(24 - requested), false),
            new Piece(at + 64, (uint)answered, true), new Piece(at + 64 + (ulong)answered, 100, true));
        Assert.Equal((10u, Ack), (written, BinaryPrimitives.ReadUInt16LittleEndian(_guest.At(at + 64, 2))));
        Assert.Equal(["+0x2"], _bench.Calls);
    }

    /// <summary>5.15.4: none of the configuration is the driver's.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(16)]
    [InlineData(24)]
    [InlineData(32)]
    [InlineData(40)]
    [InlineData(48)]
    public void The_configuration_is_not_written(int offset)
    {
        ulong before = Config(offset);
        _guest.Port.WriteConfig(offset, BitConverter.GetBytes(ulong.MaxValue));
        Assert.Equal(before, Config(offset));
        Assert.Equal((Error, 0), Ask(Plug, End, 1));
    }

    /// <summary>5.15.4: unplugged blocks are no memory here; a driver that does not know so is refused.</summary>
    [Fact]
    public void Without_unplugged_inaccessible_there_is_no_features_ok()
    {
        _guest.Features &= ~2UL;
        _guest.Negotiate();
        Assert.Equal(3, _guest.Port.Status);
    }

    private (ushort Answer, int State) Ask(ushort kind, ulong address, ushort blocks)
    {
        Assert.Equal(10u, _guest.Request(0, MemBench.Ask(_guest, kind, address, blocks)));
        Span<byte> answer = _guest.At(DeviceGuest.DataOf(0) + 64, 10);
        return (BinaryPrimitives.ReadUInt16LittleEndian(answer), BinaryPrimitives.ReadUInt16LittleEndian(answer[8..]));
    }

    private ulong Config(int offset)
    {
        byte[] data = new byte[8];
        _guest.Port.ReadConfig(offset, data);
        return BinaryPrimitives.ReadUInt64LittleEndian(data);
    }
}
