namespace Vmm.Hostile.Tests;

/// <summary>Guests that abuse the entropy device (virtio 1.2 section 5.4).</summary>
public sealed class RngTests : IDisposable
{
    private const ulong At = DeviceGuest.Data;
    private const int Most = 64 * 1024; // given for one chain
    private readonly RngBench _bench = new();
    private readonly DeviceGuest _guest;

    public RngTests()
    {
        _guest = new DeviceGuest(_bench.Device, TransportKind.Pci);
        _guest.Start();
    }

    public void Dispose()
    {
        _bench.Heal(_guest);
        _guest.Dispose();
        _bench.Dispose();
    }

    /// <summary>Buffers of any length get as much as is given at once, and nothing is written beyond.</summary>
    [Theory]
    [InlineData(1, 1, 1)]
    [InlineData(7, 1, 7)]
    [InlineData(4096, 1, 4096)]
    [InlineData(Most - 1, 1, Most - 1)]
    [InlineData(Most, 1, Most)]
    [InlineData(Most + 1, 1, Most)]
    [InlineData(400_000, 1, Most)]
    [InlineData(1, 16, 16)]
    [InlineData(4096, 16, Most)]
    [InlineData(4097, 16, Most)]
    [InlineData(20_000, 16, Most)]
    public void Any_length(int length, int pieces, int written)
    {
        Piece[] chain = [.. Enumerable.Range(0, pieces).Select(i => new Piece(At + (ulong)(i * length), (uint)length, true))];
        _guest.Watch();
        Assert.Equal((uint)written, _guest.Request(0, chain));
        _guest.AssertContained(new Piece(At, (uint)written, true));
    }

    /// <summary>What the device shall read is skipped (5.4.6): nothing is written to it.</summary>
    [Theory]
    [InlineData(1, 0)]
    [InlineData(3, 0)]
    [InlineData(1, 1)]
    [InlineData(4, 2)]
    public void Readable_buffers_are_skipped(int readable, int writable)
    {
        Piece[] chain =
        [
            .. Enumerable.Range(0, readable).Select(i => new Piece(At + (ulong)(i * 64), 64, false)),
            .. Enumerable.Range(0, writable).Select(i => new Piece(At + 0x1000 + (ulong)(i * 64), 64, true)),
        ];
        _guest.Watch();
        Assert.Equal((uint)writable * 64, _guest.Request(0, chain));
        _guest.AssertContained(chain);
    }

    /// <summary>The same bytes many times, in one chain or in many.</summary>
    [Theory]
    [InlineData(16, 1)]
    [InlineData(1, 16)]
    [InlineData(2, 16)]
    public void The_same_buffer_again(int pieces, int chains)
    {
        Piece[] chain = [.. Enumerable.Repeat(new Piece(At, 32, true), pieces)];
        _guest.Lay(_guest.Plans[0].Table, 0, chain);
        _guest.Watch();
        for (int i = 0; i < chains; i++)
        {
            _guest.Offer(0, 0);
        }

        _guest.Watch();
        _guest.Kick(0);
        for (int i = 0; i < chains; i++)
        {
            Assert.Equal((0u, 32u * (uint)pieces), _guest.WaitUsed(0));
        }

        _guest.AssertContained(new Piece(At, 32, true));
    }

    /// <summary>No two answers are alike.</summary>
    [Theory]
    [InlineData(16)]
    [InlineData(64)]
    public void Answers_differ(int length)
    {
        HashSet<string> seen = [];
        for (int i = 0; i < 30; i++)
        {
            _guest.Request(0, new Piece(At, (uint)length, true));
            Assert.True(seen.Add(Convert.ToHexString(_guest.At(At, length))));
        }
    }

    /// <summary>There is no configuration (5.4.4).</summary>
    [Theory]
    [InlineData(0, 1)]
    [InlineData(0, 8)]
    [InlineData(0x80, 4)]
    public void There_is_no_configuration(int offset, int length)
    {
        byte[] data = new byte[length];
        data.AsSpan().Fill(0xFF);
        _guest.Port.WriteConfig(offset, data);
        _guest.Port.ReadConfig(offset, data);
        Assert.Equal(new byte[length], data);
    }

    [Theory]
    [InlineData(1u)]
    [InlineData(0xFFFFu)]
    public void There_is_one_queue(uint queue)
    {
        _guest.Port.Select(queue);
        Assert.Equal(0, _guest.Port.Size);
        _guest.Port.Notify(queue & 0x3FF);
        _bench.Serve(_guest, 0);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    public void A_reset_among_gigabytes_asked_for(int milliseconds)
    {
        for (int i = 0; i < 16; i++)
        {
            _guest.Lay(_guest.Plans[0].Table, 0, [new(At, 0x70000, true)]);
            _guest.Offer(0, 0);
        }

        _guest.Kick(0);
        Thread.Sleep(milliseconds);
        _guest.Port.Status = 0;
        _guest.Watch();
        Thread.Sleep(2);
        _guest.AssertContained();
    }
}
