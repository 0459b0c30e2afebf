using Vmm.Interop;

namespace Vmm.Hostile.Tests;

/// <summary>Guests that abuse a named port and its control queues (virtio 1.2 section 5.3).</summary>
public sealed class SerialTests : IDisposable
{
    private const ulong Out = DeviceGuest.Data + (0x8000 * SerialBench.Out), In = DeviceGuest.Data + (0x8000 * SerialBench.In);
    private readonly SerialBench _bench = new();
    private readonly DeviceGuest _guest;

    public SerialTests()
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

    [Fact]
    public void A_driver_that_knows_no_ports_cannot_use_it()
    {
        _guest.Features &= ~2UL;
        _guest.Negotiate();
        Assert.Equal(3, _guest.Port.Status);
    }

    /// <summary>Controls of any port, kind and value: answered with at most the three messages there are.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void Controls_of_every_kind(int seed)
    {
        Random random = new(seed);
        for (int i = 0; i < 500; i++)
        {
            Assert.True(SerialBench.Tell(_guest, (uint)random.Next(4), (ushort)random.Next(10), (ushort)random.Next(3)));
        }

        for (int i = 0; i < 4; i++)
        {
            _guest.Post(SerialBench.ControlIn, new Piece(DeviceGuest.DataOf(SerialBench.ControlIn) + (64 * (ulong)i), 64, true));
        }

        Thread.Sleep(20);
        Assert.InRange(_guest.UsedCount(SerialBench.ControlIn), 0, 3);
    }

    /// <summary>A driver that changes what it said while it waits for room makes only its own words wrong.</summary>
    [Fact]
    public void A_chain_that_changes_while_its_rest_waits()
    {
        Assert.True(SerialBench.Tell(_guest, 1, SerialBench.PortOpen, 1));
        using UnixStream host = UnixStream.FromDescriptor(_bench.Serial.TryConnect([])!);
        Piece[] chain = [.. Enumerable.Repeat(new Piece(0, GuestRam.Bytes, false), 12)];
        _guest.Post(SerialBench.Out, chain);
        Thread.Sleep(20);
        Assert.Equal(0, _guest.UsedCount(SerialBench.Out)); // far more than a stream holds
        _guest.Put(SerialBench.Out, 0, Out, 1, 0, 0); // one byte is all, says the ring now
        byte[] sink = new byte[65536];
        _guest.Wait(
            () =>
            {
                host.Receive(sink);
                return _guest.UsedCount(SerialBench.Out) > 0;
            },
            "the chain is not given back");
        _guest.WaitUsed(SerialBench.Out);
    }

    /// <summary>A reset among megabytes of output that nobody reads ends it at once, and the stream with it.</summary>
    [Theory]
    [InlineData(0)]
    [InlineData(5)]
    public void A_reset_among_output_that_nobody_reads(int milliseconds)
    {
        Assert.True(SerialBench.Tell(_guest, 1, SerialBench.PortOpen, 1));
        using UnixStream host = UnixStream.FromDescriptor(_bench.Serial.TryConnect([])!);
        _guest.Post(SerialBench.Out, [.. Enumerable.Repeat(new Piece(0, GuestRam.Bytes, false), 12)]);
        Thread.Sleep(milliseconds);
        _guest.Port.Status = 0;
        Assert.Equal(0, _guest.Port.Status);
        Assert.Null(_bench.Serial.TryConnect([]));
        _guest.Start();
    }

    /// <summary>A receive buffer that the device cannot write takes nothing that the host said.</summary>
    [Fact]
    public void A_readable_receive_buffer()
    {
        Assert.True(SerialBench.Tell(_guest, 1, SerialBench.PortOpen, 1));
        using UnixStream host = UnixStream.FromDescriptor(_bench.Serial.TryConnect([])!);
        _guest.Watch();
        int head = _guest.Post(SerialBench.In, new Piece(In, 64, false));
        host.Send("x"u8);
        Assert.Equal(((uint)head, 0u), _guest.WaitUsed(SerialBench.In));
        Assert.Equal(1u, _guest.Request(SerialBench.In, new Piece(In + 64, 64, true)));
        Assert.Equal((byte)'x', _guest.At(In + 64, 1)[0]);
    }
}
