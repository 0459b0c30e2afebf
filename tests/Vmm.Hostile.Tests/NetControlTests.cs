namespace Vmm.Hostile.Tests;

/// <summary>Drivers that abuse the control queue of a network device with two pairs (virtio 1.2 section 5.1.6.5).</summary>
public sealed class NetControlTests : IDisposable
{
    private const byte Ok = 0, Error = 1;
    private const int Control = 4;
    private const ulong At = DeviceGuest.Data + 0x20000;
    private readonly NetBench _bench = new(2);
    private readonly DeviceGuest _guest;

    public NetControlTests()
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

    /// <summary>Class, command, data, and the answer.</summary>
    public static TheoryData<byte[], byte> Commands => new()
    {
        { [0, 0, 0], Ok },
        { [0, 0, 1], Ok },
        { [0, 1, 1], Ok },
        { [0, 0, 2], Error },
        { [0, 0, 255], Error },
        { [0, 0], Error },
        { [0, 2, 1], Error }, // of CTRL_RX_EXTRA, which is not offered
        { [0, 5, 1], Error },
        { [0, 255, 1], Error },
        { [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], Ok },
        { [1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0], Ok },
        { [1, 0], Error },
        { [1, 0, 0, 0, 0, 0], Error },
        { [1, 0, 1, 0, 0, 0, 0, 0, 0, 0], Error },
        { [1, 0, 255, 255, 255, 255, 0, 0, 0, 0], Error },
        { [1, 0, 0, 0, 0, 0, 255, 255, 255, 255], Error },
        { [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Error },
        { [1, 0, 0x56, 0x55, 0x55, 0x55, 0, 0, 0, 0], Error }, // six times it wraps 32 bits
        { [1, 1, 2, 0, 0, 0, 0, 1], Error }, // CTRL_MAC_ADDR is not offered
        { [1, 2], Error },
        { [2, 0, 5, 0], Error }, // no VLAN filter
        { [3, 0], Error }, // nothing to announce
        { [4, 0, 1, 0], Ok },
        { [4, 0, 2, 0], Ok },
        { [4, 0, 0, 0], Error },
        { [4, 0, 3, 0], Error },
        { [4, 0, 0, 128], Error },
        { [4, 0, 255, 255], Error },
        { [4, 0, 1], Error },
        { [4, 0], Error },
        { [4, 1, 1, 0], Error }, // no RSS
        { [4, 2, 1, 0], Error },
        { [5, 0, 0, 0, 0, 0, 0, 0, 0, 0], Ok },
        { [5, 0, 2, 0, 0, 0, 0, 0, 0, 0], Ok },
        { [5, 0, 0, 0, 0, 0, 0, 0, 0, 128], Error },
        { [5, 0, 0, 4, 0, 0, 0, 0, 0, 0], Error }, // GUEST_UFO
        { [5, 0, 255, 255, 255, 255, 255, 255, 255, 255], Error },
        { [5, 0, 2, 0, 0, 0, 0, 0, 0], Error },
        { [5, 1, 0, 0, 0, 0, 0, 0, 0, 0], Error },
        { [6, 0, 0, 0, 0, 0], Error },
        { [255, 255], Error },
        { [255, 255, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20], Error },
    };

    [Theory]
    [MemberData(nameof(Commands))]
    public void Command(byte[] command, byte answer)
    {
        Assert.Equal(answer, Ask(command, command.Length));
        Assert.Equal(answer, Ask(command, 1)); // in pieces of one byte, as far as the queue goes (2.7.4.1)
        _bench.Serve(_guest, 1);
    }

    /// <summary>Without the feature each class is refused, whatever it says.</summary>
    [Theory]
    [InlineData(18, new byte[] { 0, 0, 1 })]
    [InlineData(18, new byte[] { 1, 0, 0, 0, 0, 0, 0, 0, 0, 0 })]
    [InlineData(2, new byte[] { 5, 0, 0, 0, 0, 0, 0, 0, 0, 0 })]
    public void Without_its_feature(int bit, byte[] command)
    {
        _guest.Features &= ~(1UL << bit);
        _guest.Start();
        Assert.Equal(Error, Ask(command, command.Length));
    }

    public static TheoryData<string, Piece[]> Shapes => new()
    {
        { "no answer", [new(At, 3, false)] },
        { "no command", [new(At + 64, 1, true)] },
        { "half a command", [new(At, 1, false), new(At + 64, 1, true)] },
        { "the answer before the command", [new(At + 64, 1, true), new(At, 3, false)] },
    };

    [Theory]
    [MemberData(nameof(Shapes))]
    public void No_command(string shape, Piece[] chain)
    {
        Assert.NotEmpty(shape);
        _guest.At(At, 3).Clear();
        _guest.Lay(_guest.Plans[Control].Table, 0, chain);
        _guest.Offer(Control, 0);
        _guest.Watch();
        _guest.Kick(Control);
        Assert.Contains("malformed", _guest.WaitNeedsReset(), StringComparison.Ordinal);
        _guest.AssertContained();
    }

    /// <summary>
    /// A table that is announced long and lies short, in a chain of gigabytes of readable memory: nothing is copied for it.
    /// </summary>
    [Fact]
    public void A_table_of_a_megabyte_costs_nothing()
    {
        _guest.At(At, 16).Clear();
        _guest.At(At, 2)[0] = 1;
        _guest.At(At + 64, 1)[0] = 0xEE;
        Piece[] chain = [new(At, 10, false), .. Enumerable.Repeat(new Piece(0, GuestRam.Bytes, false), 10), new(At + 64, 1, true)];
        Assert.Equal(1u, _guest.Request(Control, chain));
        Assert.Equal(Error, _guest.At(At + 64, 1)[0]);
    }

    [Fact]
    public void Pairs_on_and_off_among_frames()
    {
        for (int i = 0; i < 40; i++)
        {
            Assert.Equal(Ok, Ask([4, 0, (byte)(1 + (i % 2)), 0], 4));
            _bench.Serve(_guest, 1);
            _bench.Serve(_guest, 3);
        }

        Assert.Equal(Ok, Ask([4, 0, 1, 0], 4));
    }

    private byte Ask(byte[] command, int piece)
    {
        command.CopyTo(_guest.At(At, command.Length));
        _guest.At(At + 64, 1)[0] = 0xEE;
        List<Piece> chain = [];
        for (int at = 0; at < command.Length;)
        {
            int length = chain.Count < 12 ? Math.Min(piece, command.Length - at) : command.Length - at;
            chain.Add(new(At + (ulong)at, (uint)length, false));
            at += length;
        }

        chain.Add(new(At + 64, 1, true));
        Assert.Equal(1u, _guest.Request(Control, [.. chain]));
        return _guest.At(At + 64, 1)[0];
    }
}
