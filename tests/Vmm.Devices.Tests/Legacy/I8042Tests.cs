using Vmm.Devices.Bus;
using Vmm.Devices.Legacy;

namespace Vmm.Devices.Tests.Legacy;

/// <summary>The keyboard controller and its keyboard, as a driver talks to them.</summary>
public sealed class I8042Tests
{
    private const byte InterruptOn = 0x01, KeyboardOff = 0x10;

    private readonly Line _line = new();
    private readonly I8042 _device;

    public I8042Tests() => _device = new I8042(() => throw new InvalidOperationException("nobody asked for a reset"), _line);

    [Fact]
    public void The_configuration_byte_keeps_what_exists_and_neither_translation_nor_a_mouse()
    {
        Assert.Equal(0x24, Ask(0x20));
        Configure(0xFF);
        Assert.Equal(0x35, Ask(0x20));
        Assert.Equal(0x55, Ask(0xAA));
        Assert.Equal(0x00, Ask(0xAB));
        Assert.NotEqual(0x00, Ask(0xA9));
    }

    [Fact]
    public void The_keyboard_says_who_it_is_and_acknowledges_commands_and_their_parameters()
    {
        Assert.Equal([0xFA, 0xAB, 0x83], Send(0xF2));
        Assert.Equal([0xFA], Send(0xED));
        Assert.Equal([0xFA], Send(0x07));
        Assert.Equal([0xFA], Send(0xF0));
        Assert.Equal([0xFA, 0x02], Send(0x00));
        Assert.Equal([0xFA, 0xAA], Send(0xFF));
        Assert.Equal([0xEE], Send(0xEE));
        Assert.Equal([0xFE], Send(0x42));
    }

    [Fact]
    public void The_wake_key_raises_an_interrupt_for_each_of_its_bytes()
    {
        Configure(InterruptOn);
        int before = _line.Pulses;
        _device.PressWakeKey();
        Assert.Equal(before + 1, _line.Pulses);
        Assert.Equal([0xE0, 0x5E, 0xE0, 0xF0, 0x5E], Drain());
        Assert.Equal(before + 5, _line.Pulses);
        Assert.Equal(0, Status() & 1);
    }

    [Fact]
    public void A_key_waits_while_the_keyboard_is_off_or_nobody_listens_and_is_told_then()
    {
        Configure(KeyboardOff);
        _device.PressWakeKey();
        Assert.Equal((0, 0), (_line.Pulses, Status() & 1));
        Configure(0);
        Assert.Equal((0, 1), (_line.Pulses, Status() & 1));
        Configure(InterruptOn);
        Assert.Equal(1, _line.Pulses);
        Assert.Equal([0xE0, 0x5E, 0xE0, 0xF0, 0x5E], Drain());
    }

    [Fact]
    public void Keys_that_nobody_takes_are_lost_whole_and_a_keyboard_that_is_told_not_to_scan_has_none()
    {
        for (int i = 0; i < 1000; i++)
        {
            _device.PressWakeKey();
        }

        Assert.Equal(Enumerable.Repeat((byte[])[0xE0, 0x5E, 0xE0, 0xF0, 0x5E], 3).SelectMany(key => key), Drain());
        Assert.Equal([0xFA], Send(0xF5));
        _device.PressWakeKey();
        Assert.Empty(Drain());
        Assert.Equal([0xFA], Send(0xF4));
        _device.PressWakeKey();
        Assert.Equal(5, Drain().Count);
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Random_accesses_and_keys_never_throw_and_keep_little()
    {
        I8042 device = new(() => { }, new Line());
        Random random = new(64);
        byte[] data = new byte[8];
        for (int i = 0; i < 200_000; i++)
        {
            IBusDevice port = random.Next(2) == 0 ? device.Data : device.Command;
            random.NextBytes(data);
            switch (random.Next(5))
            {
                case 0:
                    device.PressWakeKey();
                    break;
                case 1 or 2:
                    port.Write(0, data.AsSpan(0, 1 << random.Next(3)));
                    break;
                default:
                    port.Read(0, data.AsSpan(0, 1 << random.Next(3)));
                    break;
            }
        }

        device.Command.Write(0, [0xAE]);
        int left = 0;
        for (byte[] status = [1]; (status[0] & 1) != 0; left++)
        {
            device.Data.Read(0, data.AsSpan(0, 1));
            device.Command.Read(0, status);
        }

        Assert.InRange(left, 0, 18);
    }

    private byte Status()
    {
        byte[] status = [0];
        _device.Command.Read(0, status);
        return status[0];
    }

    private List<byte> Drain()
    {
        List<byte> bytes = [];
        byte[] one = [0];
        while ((Status() & 1) != 0)
        {
            _device.Data.Read(0, one);
            bytes.Add(one[0]);
        }

        return bytes;
    }

    private byte Ask(byte command)
    {
        _device.Command.Write(0, [command]);
        return Assert.Single(Drain());
    }

    private void Configure(byte value)
    {
        _device.Command.Write(0, [0x60]);
        _device.Data.Write(0, [value]);
    }

    private List<byte> Send(byte command)
    {
        _device.Data.Write(0, [command]);
        return Drain();
    }

    private sealed class Line : IInterruptLine
    {
        public int Pulses { get; private set; }

        public void Set(bool level) => Pulses += level ? 1 : 0;
    }
}
