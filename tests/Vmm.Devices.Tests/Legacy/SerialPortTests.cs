using Vmm.Devices.Bus;
using Vmm.Devices.Legacy;

namespace Vmm.Devices.Tests.Legacy;

/// <summary>The binding around the UART: line, sink, and input that waits for room.</summary>
public sealed class SerialPortTests : IDisposable
{
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(30);
    private readonly Line _line = new();
    private readonly Sink _sink = new();
    private readonly SerialPort _port;

    public SerialPortTests() => _port = new SerialPort(_line, _sink);

    public void Dispose() => _port.Dispose();

    [Fact]
    public void Output_reaches_the_sink_in_order_and_with_the_lock_free()
    {
        // The sink reads the port from another thread: it would block if the port still held its lock.
        _sink.OnWrite = () => Assert.True(Task.Run(() => Register(5)).Wait(Deadline));
        foreach (byte value in "login: "u8)
        {
            _port.Write(0, [value]);
        }

        Assert.Equal("login: "u8.ToArray(), _sink.Bytes);
    }

    [Fact]
    public void The_line_follows_the_interrupt_and_is_set_only_on_change()
    {
        _port.Write(2, [1]);
        _port.Write(1, [1]);
        Assert.Equal(3, _port.Send([1, 2, 3]));
        Assert.Equal([true], _line.Levels);
        Assert.Equal((1, 2), (Register(0), Register(0)));
        Assert.Equal([true], _line.Levels);
        Assert.Equal(3, Register(0));
        Assert.Equal([true, false], _line.Levels);
    }

    [Fact]
    public async Task Input_longer_than_the_fifo_waits_and_arrives_whole_and_in_order()
    {
        _port.Write(2, [1]);
        byte[] input = new byte[10_000];
        new Random(21).NextBytes(input);
        Task<int> sender = Task.Run(() => _port.Send(input));
        List<byte> received = [];
        Assert.True(SpinWait.SpinUntil(() => Drain(received) && received.Count == input.Length, Deadline));
        Assert.Equal(input.Length, await sender.WaitAsync(Deadline));
        Assert.Equal(input, received);
        Assert.Equal(0, Register(5) & 2); // no overrun on the way
    }

    [Fact]
    public async Task Held_it_takes_no_input_and_says_how_much_it_took()
    {
        _port.Write(2, [1]);
        byte[] input = new byte[100];
        Task<int> sender = Task.Run(() => _port.Send(input));
        Assert.True(SpinWait.SpinUntil(() => _port.Capture().ReceiveFifo.Length == 16, Deadline));
        _port.HoldInput();
        Assert.Equal(16, await sender.WaitAsync(Deadline));
        List<byte> received = [];
        Drain(received);
        Assert.Equal(0, _port.Send(input)); // there is room, but it is held
        _port.ResumeInput();
        Assert.Equal(10, _port.Send(input.AsSpan(0, 10)));
    }

    [Fact]
    public async Task Close_ends_a_send_that_waits_and_says_how_much_went()
    {
        _port.Write(2, [1]);
        Task<int> sender = Task.Run(() => _port.Send(new byte[100]));
        Assert.True(SpinWait.SpinUntil(() => _port.Capture().ReceiveFifo.Length == Uart16550.FifoDepth, Deadline));
        _port.Close();
        Assert.Equal(Uart16550.FifoDepth, await sender.WaitAsync(Deadline));
    }

    [Fact]
    public void Restore_raises_the_line_that_was_high_when_saved()
    {
        _port.Write(1, [1]);
        _port.Send([7]);
        Line other = new();
        using SerialPort copy = new(other, new Sink());
        copy.Restore(_port.Capture());
        Assert.Equal([true], other.Levels);
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_accesses_never_throw() => DeviceFuzz.Run(_port, ports: 8, seed: 22);

    private bool Drain(List<byte> into)
    {
        while ((Register(5) & 1) != 0)
        {
            into.Add(Register(0));
        }

        return true;
    }

    private byte Register(ulong offset)
    {
        Span<byte> data = stackalloc byte[1];
        _port.Read(offset, data);
        return data[0];
    }

    private sealed class Line : IInterruptLine
    {
        public List<bool> Levels { get; } = [];

        public void Set(bool level) => Levels.Add(level);
    }

    private sealed class Sink : ISerialSink
    {
        public Action? OnWrite { get; set; }

        public List<byte> Bytes { get; } = [];

        public void Write(ReadOnlySpan<byte> bytes)
        {
            OnWrite?.Invoke();
            Bytes.AddRange(bytes);
        }
    }
}
