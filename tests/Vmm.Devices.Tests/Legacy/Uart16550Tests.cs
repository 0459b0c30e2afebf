using System.Text.Json;
using Vmm.Devices.Legacy;
using Vmm.State;

namespace Vmm.Devices.Tests.Legacy;

public sealed class Uart16550Tests
{
    private readonly Uart16550 _uart = new();

    [Fact]
    public void Enabling_the_transmit_interrupt_raises_it_and_reading_iir_acknowledges_it()
    {
        Assert.Equal(1, _uart.Read(2));
        _uart.Write(1, 2, out _);
        Assert.True(_uart.InterruptPending);
        Assert.Equal(2, _uart.Read(2));
        Assert.False(_uart.InterruptPending);
        Assert.True(_uart.Write(0, (byte)'x', out byte sent));
        Assert.Equal((byte)'x', sent);
        Assert.Equal(2, _uart.Read(2));
        Assert.Equal(0x60, _uart.Read(5));
    }

    [Fact]
    public void A_received_byte_interrupts_until_it_is_read()
    {
        _uart.Write(1, 1, out _);
        _uart.Receive(0x41);
        Assert.True(_uart.InterruptPending);
        Assert.Equal(4, _uart.Read(2));
        Assert.Equal(0x61, _uart.Read(5));
        Assert.Equal(0x41, _uart.Read(0));
        Assert.False(_uart.InterruptPending);
        Assert.Equal(0x60, _uart.Read(5));
    }

    [Fact]
    public void The_fifo_keeps_sixteen_bytes_in_order_and_the_next_one_is_an_overrun()
    {
        _uart.Write(2, 1, out _);
        for (byte i = 0; i <= Uart16550.FifoDepth; i++)
        {
            _uart.Receive(i);
        }

        Assert.Equal(0x63, _uart.Read(5));
        Assert.Equal(0x61, _uart.Read(5)); // reading LSR clears the error
        for (byte i = 0; i < Uart16550.FifoDepth; i++)
        {
            Assert.Equal(i, _uart.Read(0));
        }

        Assert.Equal(0x60, _uart.Read(5));
    }

    [Fact]
    public void Clearing_the_fifo_drops_what_was_received()
    {
        _uart.Write(2, 1, out _);
        _uart.Receive(1);
        _uart.Write(2, 3, out _);
        Assert.Equal(Uart16550.FifoDepth, _uart.ReceiveRoom);
        Assert.Equal(0x60, _uart.Read(5));
    }

    [Fact]
    public void Loopback_returns_the_byte_and_the_modem_lines_and_sends_nothing()
    {
        _uart.Write(4, 0x10 | 0x0A, out _); // LOOP, RTS, OUT2: what drivers probe with
        Assert.Equal(0x90, _uart.Read(6) & 0xF0);
        Assert.False(_uart.Write(0, 0x5A, out _));
        Assert.Equal(0x5A, _uart.Read(0));
    }

    [Fact]
    public void The_divisor_latch_hides_data_and_interrupt_enable()
    {
        _uart.Write(1, 5, out _);
        _uart.Write(3, 0x83, out _);
        Assert.False(_uart.Write(0, 0x34, out _));
        _uart.Write(1, 0x12, out _);
        Assert.Equal((0x34, 0x12), (_uart.Read(0), _uart.Read(1)));
        _uart.Write(3, 3, out _);
        Assert.Equal(5, _uart.Read(1));
    }

    [Fact]
    public void A_restored_copy_behaves_like_the_original_after_any_history()
    {
        Random random = new(6);
        for (int round = 0; round < 500; round++)
        {
            Uart16550 original = new();
            Step(original, random, 60);
            UartStateV1 state = original.Capture();
            Uart16550 copy = new();
            copy.Restore(state);
            Assert.Equal(JsonSerializer.Serialize(state), JsonSerializer.Serialize(copy.Capture()));
            int seed = random.Next();
            Assert.Equal(Step(original, new Random(seed), 60), Step(copy, new Random(seed), 60));
        }
    }

    [Fact]
    public void Restore_refuses_more_bytes_than_the_fifo_holds() =>
        Assert.Throws<StateException>(() => _uart.Restore(_uart.Capture() with { ReceiveFifo = new byte[17] }));

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_accesses_never_throw() => Assert.Equal(100000, Step(_uart, new Random(7), 100000).Count);

    private static List<int> Step(Uart16550 uart, Random random, int steps)
    {
        List<int> seen = [];
        for (int i = 0; i < steps; i++)
        {
            int register = random.Next(8);
            byte value = (byte)random.Next(256);
            int result = 0;
            switch (random.Next(3))
            {
                case 0: result = uart.Read(register); break;
                case 1: result = uart.Write(register, value, out _) ? 1 : 0; break;
                default: uart.Receive(value); break;
            }

            seen.Add((result * 2) + (uart.InterruptPending ? 1 : 0));
        }

        return seen;
    }
}
