namespace Vmm.Hostile.Tests;

/// <summary>Drivers that abuse the frames of a network device (virtio 1.2 sections 5.1.6.2 to 5.1.6.4).</summary>
public sealed class NetTests : IDisposable
{
    private const ulong In = DeviceGuest.Data, Out = DeviceGuest.Data + 0x8000;
    private const ulong Mergeable = 1UL << 15, GuestCsum = 2, GuestTso4 = 1UL << 7;
    private readonly NetBench _bench = new(2);
    private readonly DeviceGuest _guest;

    public NetTests() => _guest = new DeviceGuest(_bench.Device, TransportKind.Pci);

    public void Dispose()
    {
        _guest.Port.Status = 0;
        _bench.Net.Clear();
        _bench.Net.RefuseWrites = false;
        _bench.Heal(_guest);
        _guest.Dispose();
        _bench.Dispose();
    }

    public static TheoryData<string, int, Piece[]> Shapes => new()
    {
        { "receive: a buffer that the device reads", 0, [new(In, 2048, false)] },
        { "receive: readable before writable", 0, [new(In, 12, false), new(In + 12, 2048, true)] },
        { "receive: less than a header", 0, [new(In, 11, true)] },
        { "receive: one byte", 0, [new(In, 1, true)] },
        { "receive: a header in pieces that is too short", 0, [new(In, 4, true), new(In + 4, 7, true)] },
        { "send: a buffer that the device writes", 1, [new(Out, 72, true)] },
        { "send: a header, and data that the device writes", 1, [new(Out, 12, false), new(Out + 12, 60, true)] },
        { "send: less than a header", 1, [new(Out, 11, false)] },
        { "send: one byte", 1, [new(Out, 1, false)] },
        { "send: a header in pieces that is too short", 1, [new(Out, 6, false), new(Out + 6, 5, false)] },
        { "send on the second pair: less than a header", 3, [new(Out, 11, false)] },
        { "send on the second pair: writable", 3, [new(Out, 72, true)] },
    };

    [Theory]
    [MemberData(nameof(Shapes))]
    public void No_frame(string shape, int queue, Piece[] chain)
    {
        Assert.NotEmpty(shape);
        _guest.Start();
        _guest.Lay(_guest.Plans[queue].Table, 0, chain);
        _guest.Offer(queue, 0);
        _guest.Watch();
        _guest.Kick(queue);
        _bench.Net.TrySend(0, new byte[60]);
        Assert.Contains("malformed", _guest.WaitNeedsReset(), StringComparison.Ordinal);
        _guest.AssertContained();
        Assert.Null(_bench.Net.Receive(0));
        Assert.Null(_bench.Net.Receive(1));
    }

    /// <summary>
    /// A header may say anything (5.1.6.2): it is the host's kernel that judges it, and it arrives there byte for byte. Flags, segments,
    /// lengths, offsets.
    /// </summary>
    [Theory]
    [InlineData(0, 0xFF)]
    [InlineData(0, 0x01)]
    [InlineData(0, 0x02)]
    [InlineData(1, 0xFF)]
    [InlineData(1, 0x01)]
    [InlineData(1, 0x03)]
    [InlineData(1, 0x04)]
    [InlineData(1, 0x05)]
    [InlineData(1, 0x81)]
    [InlineData(2, 0xFF)]
    [InlineData(4, 0xFF)]
    [InlineData(6, 0xFF)]
    [InlineData(8, 0xFF)]
    [InlineData(10, 0xFF)]
    public void A_header_of_nonsense_reaches_the_host_as_it_is_and_harms_nobody(int at, byte value)
    {
        _guest.Start();
        Span<byte> frame = _guest.At(Out, 72);
        frame.Clear();
        frame[at] = value;
        frame[Math.Min(at + 1, 11)] = value;
        _guest.Watch();
        Assert.Equal(0u, _guest.Request(1, new Piece(Out, 72, false)));
        Assert.Equal(_guest.At(Out, 72).ToArray(), _bench.Net.Receive(0));
    }

    /// <summary>Frames of the host's limits and beyond: what it refuses is counted as dropped, and the buffer comes back.</summary>
    [Theory]
    [InlineData(12, 1)]
    [InlineData(13, 1)]
    [InlineData(26, 1)]
    [InlineData(1526, 1)]
    [InlineData(32768, 1)]
    [InlineData(65000, 2)]
    [InlineData(65562, 14)]
    public void A_frame_of_any_length(int length, int pieces)
    {
        _guest.Start();
        List<Piece> chain = [];
        uint left = (uint)length;
        for (int i = 0; i < pieces; i++)
        {
            uint part = i + 1 < pieces ? Math.Min(left - 1, (uint)(length / pieces)) : left;
            chain.Add(new(Out, part, false)); // every piece the same memory
            left -= part;
        }

        Assert.Equal(0u, _guest.Request(1, [.. chain]));
        Assert.Equal(length, _bench.Net.Receive(0)?.Length);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void What_the_host_refuses_is_given_back(int queue)
    {
        _bench.Net.RefuseWrites = true;
        _guest.Start();
        for (int i = 0; i < 20; i++)
        {
            Assert.Equal(0u, _guest.Request(queue, _bench.Good(_guest, queue)));
        }
    }

    /// <summary>
    /// Receive buffers too small for a frame, without merging: the frame is dropped, the buffer stays, the next frame that fits comes
    /// (5.1.6.3.1).
    /// </summary>
    [Theory]
    [InlineData(12, 60)]
    [InlineData(13, 60)]
    [InlineData(71, 60)]
    [InlineData(100, 1500)]
    public void A_buffer_too_small_for_a_frame(int room, int frame)
    {
        _guest.Features &= ~(Mergeable | GuestTso4 | (1UL << 8));
        _guest.Start();
        _guest.Post(0, new Piece(In, (uint)room, true));
        _guest.Watch();
        _bench.Net.TrySend(0, new byte[frame]);
        _guest.Wait(() => _bench.NetDevice.Counters.Dropped == 1, "the frame is not dropped");
        Assert.Equal(0, _guest.UsedCount(0));
        _guest.AssertContained(new Piece(In, (uint)room, true));
        if (room > 12)
        {
            _bench.Net.TrySend(0, new byte[room - 12]);
            Assert.Equal((0u, (uint)room), _guest.WaitUsed(0));
        }
    }

    /// <summary>Mergeable buffers of any size: as many as it takes, the number in the header, never a byte beyond (5.1.6.4).</summary>
    [Theory]
    [InlineData(12, 6)]
    [InlineData(13, 6)]
    [InlineData(20, 4)]
    [InlineData(36, 2)]
    [InlineData(71, 2)]
    [InlineData(72, 1)]
    [InlineData(4096, 1)]
    public void Mergeable_buffers_of_any_size(int room, int buffers)
    {
        _guest.Start();
        for (int i = 0; i < 15; i++)
        {
            _guest.Post(0, new Piece(In + (0x800 * (ulong)i), (uint)Math.Min(room, 0x800), true));
        }

        _guest.Watch();
        byte[] frame = new byte[60];
        frame.AsSpan().Fill(0x42);
        _bench.Net.TrySend(0, frame);
        int total = 0;
        for (int i = 0; i < buffers; i++)
        {
            total += (int)_guest.WaitUsed(0).Written;
        }

        Assert.Equal((72, 0), (total, _guest.UsedCount(0)));
        Assert.Equal(buffers, _guest.At(In + 10, 1)[0]);
        _guest.AssertContained(
            [.. Enumerable.Range(0, buffers).Select(i => new Piece(In + (0x800 * (ulong)i), (uint)Math.Min(room, 0x800), true))]);
    }

    /// <summary>A chain of as many descriptors as there are, in both directions.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void A_chain_as_long_as_the_queue(int queue)
    {
        _guest.Start();
        Piece[] chain = [.. Enumerable.Range(0, 16).Select(i => new Piece((queue == 0 ? In : Out) + (8 * (ulong)i), 8, queue == 0))];
        _guest.At(Out, 128).Clear();
        int head = _guest.Post(queue, chain);
        if (queue == 0)
        {
            _bench.Net.TrySend(0, new byte[60]);
        }

        Assert.Equal(((uint)head, queue == 0 ? 72u : 0), _guest.WaitUsed(queue));
    }

    /// <summary>The same buffer in every chain: the driver's own harm, and every frame is given back.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void One_buffer_for_all(int queue)
    {
        _guest.Start();
        for (int i = 0; i < 12; i++)
        {
            _guest.Post(queue, new Piece(queue == 0 ? In : Out, 2048, queue == 0));
            if (queue == 0)
            {
                _bench.Net.TrySend(0, new byte[60]);
            }
        }

        for (int i = 0; i < 12; i++)
        {
            _guest.WaitUsed(queue);
        }
    }

    /// <summary>Frames while the driver resets, again and again: none is written after the reset.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(4)]
    public void Resets_among_frames(int frames)
    {
        for (int round = 0; round < 10; round++)
        {
            _guest.Start();
            for (int i = 0; i < 8; i++)
            {
                _guest.Post(0, _bench.Good(_guest, 0));
                _guest.Post(1, _bench.Good(_guest, 1));
            }

            for (int i = 0; i < frames; i++)
            {
                _bench.Net.TrySend(0, new byte[60]);
            }

            _guest.Port.Status = 0;
            _guest.Watch();
            Thread.Sleep(1);
            foreach (RingPlan plan in _guest.Plans)
            {
                plan.Enabled = false;
            }

            _guest.AssertContained();
            _guest.PlanAnew();
        }
    }

    /// <summary>5.1.4: MAC, status, pairs, MTU are read-only for a driver of virtio 1.0 and later.</summary>
    [Theory]
    [InlineData(0, 6)]
    [InlineData(6, 2)]
    [InlineData(8, 2)]
    [InlineData(10, 2)]
    public void The_configuration_is_not_written(int offset, int length)
    {
        byte[] before = new byte[length], after = new byte[length], ones = new byte[length];
        _guest.Port.ReadConfig(offset, before);
        ones.AsSpan().Fill(0xFF);
        _guest.Port.WriteConfig(offset, ones);
        _guest.Port.ReadConfig(offset, after);
        Assert.Equal(before, after);
    }

    /// <summary>5.1.3.1: features that need others, without them: taken for not accepted.</summary>
    [Theory]
    [InlineData(GuestTso4)]
    [InlineData(GuestTso4 | Mergeable)]
    public void Segments_without_checksums_are_not_given(ulong features)
    {
        _guest.Features = features | (1UL << 32);
        _guest.Start();
        Assert.Equal(Vmm.Interop.TapOffloads.None, _bench.Net.Set);
        _guest.Features |= GuestCsum;
        _guest.Start();
        Assert.NotEqual(Vmm.Interop.TapOffloads.None, _bench.Net.Set);
    }
}
