using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Pci;

namespace Vmm.Devices.Tests.Pci;

public sealed class PciHotplugPortsTests
{
    private readonly List<int> _ejected = [];
    private readonly PciHotplugPorts _ports;
    private readonly RecordingLine _line = new();

    public PciHotplugPortsTests() => _ports = new PciHotplugPorts(_line, _ejected.Add);

    [Fact]
    public void What_was_added_is_shown_until_the_guest_acknowledges_it()
    {
        _ports.Added(3);
        _ports.Added(31);
        Assert.Equal((true, 0x8000_0008u, 2u), (_line.Level, Read(PciHotplugPorts.AddedOffset), Read(PciHotplugPorts.GenerationOffset)));
        Write(PciHotplugPorts.AddedOffset, 8);
        Assert.True(_line.Level);
        Assert.Equal(0x8000_0000u, Read(PciHotplugPorts.AddedOffset));
        Assert.Equal(0x8000_0008u, Read(PciHotplugPorts.EjectOffset));
        Write(PciHotplugPorts.AddedOffset, uint.MaxValue);
        Assert.Equal((false, 2), (_line.Level, _line.Changes)); // up once, down once
    }

    [Fact]
    public void A_removal_is_asked_for_as_often_as_the_host_likes_and_ends_with_one_eject()
    {
        _ports.Allow(4);
        Assert.False(_line.Level);
        Assert.True(_ports.AskRemoval(4));
        Assert.True(_line.Level);
        Write(PciHotplugPorts.RemovalOffset, 0x10);
        Assert.False(_line.Level);
        Assert.True(_ports.AskRemoval(4));
        Assert.Equal((true, 0x10u), (_line.Level, Read(PciHotplugPorts.RemovalOffset)));
        Write(PciHotplugPorts.EjectOffset, 0x10);
        Write(PciHotplugPorts.EjectOffset, 0x10);
        Assert.Equal([4], _ejected);
        Assert.False(_line.Level); // the wish went with the device
        Assert.Equal((0u, 0u), (Read(PciHotplugPorts.RemovalOffset), Read(PciHotplugPorts.EjectOffset)));
        Assert.False(_ports.AskRemoval(4));
    }

    [Fact]
    public void An_eject_long_after_the_wish_was_acknowledged_still_counts_and_one_of_a_fixed_slot_never_does()
    {
        _ports.Allow(5);
        Write(PciHotplugPorts.EjectOffset, uint.MaxValue & ~(1u << 5));
        Assert.Empty(_ejected);
        Write(PciHotplugPorts.EjectOffset, uint.MaxValue);
        Assert.Equal([5], _ejected);
    }

    [Fact]
    public void Host_and_guest_that_take_a_slot_at_once_share_it_out()
    {
        _ports.Added(6);
        Assert.True(_ports.Take(6));
        Write(PciHotplugPorts.EjectOffset, 1u << 6);
        Assert.Empty(_ejected);
        Assert.False(_ports.Take(6));
        _ports.Changed(6);
        Assert.Equal(1u << 6, Read(PciHotplugPorts.AddedOffset));
        Assert.Equal(0u, Read(PciHotplugPorts.EjectOffset));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(8)]
    public void Accesses_that_are_no_whole_register_do_nothing(int size)
    {
        _ports.Added(1);
        byte[] data = new byte[size];
        Array.Fill(data, (byte)0xFF);
        for (ulong offset = 0; offset < PciHotplugPorts.Length; offset++)
        {
            _ports.Write(offset, data);
        }

        _ports.Write(1, [0xFF, 0xFF, 0xFF, 0xFF]);
        Assert.Empty(_ejected);
        Assert.Equal(2u, Read(PciHotplugPorts.AddedOffset));
        _ports.Read(0, data);
        Assert.All(data, b => Assert.Equal(0, b));
    }

    /// <summary>A model of what may be ejected: each plugged function leaves once, by the guest or by the host.</summary>
    [Fact]
    public void Any_mix_of_host_and_guest_keeps_the_books()
    {
        Random random = new(7);
        HashSet<int> plugged = [];
        for (int step = 0; step < 20_000; step++)
        {
            int slot = random.Next(1, 32);
            uint value = (uint)random.NextInt64(1L << 32);
            _ejected.Clear();
            switch (random.Next(6))
            {
                case 0 when !plugged.Contains(slot):
                    _ports.Added(slot);
                    plugged.Add(slot);
                    break;
                case 1:
                    Assert.Equal(plugged.Contains(slot), _ports.AskRemoval(slot));
                    break;
                case 2:
                    Assert.Equal(plugged.Remove(slot), _ports.Take(slot));
                    break;
                case 3:
                    Write(PciHotplugPorts.EjectOffset, value & (uint)random.NextInt64(1L << 32));
                    Assert.All(_ejected, s => Assert.True(plugged.Remove(s)));
                    break;
                default:
                    Write((ulong)(4 * random.Next(4)), value & ~Read(PciHotplugPorts.EjectOffset));
                    Assert.Empty(_ejected);
                    break;
            }

            Assert.Equal(plugged.Aggregate(0u, (mask, s) => mask | (1u << s)), Read(PciHotplugPorts.EjectOffset));
            Assert.Equal(0u, Read(PciHotplugPorts.RemovalOffset) & ~Read(PciHotplugPorts.EjectOffset));
            Assert.Equal((Read(PciHotplugPorts.AddedOffset) | Read(PciHotplugPorts.RemovalOffset)) != 0, _line.Level);
        }
    }

    /// <summary>Host and guest at once: the level that stands at the end is that of the registers, whatever the order was.</summary>
    [Fact]
    public async Task The_level_is_never_older_than_the_registers()
    {
        for (int round = 0; round < 200; round++)
        {
            Task host = Task.Run(() =>
            {
                for (int i = 1; i < 32; i++)
                {
                    _ports.Added(i);
                    _ports.AskRemoval(i);
                }
            });
            Task guest = Task.Run(() =>
            {
                for (int i = 0; i < 40; i++)
                {
                    Write(PciHotplugPorts.AddedOffset, uint.MaxValue);
                    Write(PciHotplugPorts.RemovalOffset, uint.MaxValue);
                }
            });
            await Task.WhenAll(host, guest);
            Assert.Equal((Read(PciHotplugPorts.AddedOffset) | Read(PciHotplugPorts.RemovalOffset)) != 0, _line.Level);
        }
    }

    private uint Read(ulong offset)
    {
        byte[] data = new byte[4];
        _ports.Read(offset, data);
        return BinaryPrimitives.ReadUInt32LittleEndian(data);
    }

    private void Write(ulong offset, uint value)
    {
        byte[] data = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(data, value);
        _ports.Write(offset, data);
    }

    private sealed class RecordingLine : IInterruptLine
    {
        public bool Level { get; private set; }

        public int Changes { get; private set; }

        public void Set(bool level)
        {
            Level = level;
            Changes++;
        }
    }
}
