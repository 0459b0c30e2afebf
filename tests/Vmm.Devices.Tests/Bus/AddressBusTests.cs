using Vmm.Devices.Bus;
using Vmm.Memory;

namespace Vmm.Devices.Tests.Bus;

public sealed class AddressBusTests
{
    [Fact]
    public void Map_refuses_an_overlap_and_names_both_owners()
    {
        AddressBus bus = new("ports");
        bus.Map(0x3F8, 8, new Recorder(1), "serial");
        InvalidOperationException error = Assert.Throws<InvalidOperationException>(() => bus.Map(0x3FF, 2, new Recorder(2), "parallel"));
        Assert.Contains("serial", error.Message, StringComparison.Ordinal);
        Assert.Contains("parallel", error.Message, StringComparison.Ordinal);
        bus.Map(0x400, 2, new Recorder(3), "neighbour");
        Assert.Equal(2, bus.Count);
    }

    [Theory]
    [InlineData(0UL, 0UL)]
    [InlineData(ulong.MaxValue, 2UL)]
    public void TryMap_refuses_an_empty_or_wrapping_range(ulong start, ulong length) =>
        Assert.False(new AddressBus("mmio").TryMap(new(start), length, new Recorder(1), "x"));

    [Fact]
    public void An_access_over_the_end_of_a_range_reaches_nobody()
    {
        AddressBus bus = new("mmio");
        Recorder device = new(0x11);
        bus.Map(0x1000, 0x10, device, "device");
        bus.Map(0x1010, 0x10, device, "next");
        byte[] data = [1, 2, 3, 4];
        bus.Read(0x100E, data);
        Assert.Equal([0xFF, 0xFF, 0xFF, 0xFF], data);
        bus.Write(0x100E, data);
        Assert.Equal(0, device.Writes);
        bus.Write(0x100C, data);
        Assert.Equal((1, 0xCUL), (device.Writes, device.LastOffset));
    }

    [Fact]
    public void Random_map_unmap_and_reads_agree_with_a_plain_model()
    {
        Random random = new(4);
        AddressBus bus = new("mmio");
        Recorder?[] model = new Recorder?[256];
        Dictionary<int, int> ranges = [];
        for (int step = 0; step < 20000; step++)
        {
            int start = random.Next(250), length = random.Next(1, 7);
            switch (random.Next(4))
            {
                case 0:
                    Recorder device = new((byte)random.Next(255));
                    bool free = Array.TrueForAll(model[start..Math.Min(256, start + length)], r => r is null);
                    Assert.Equal(free, bus.TryMap(new(0xF0_0000_0000 + (ulong)start), (ulong)length, device, "x"));
                    if (free)
                    {
                        Array.Fill(model, device, start, length);
                        ranges[start] = length;
                    }

                    break;
                case 1:
                    bus.Unmap(new GuestAddress(0xF0_0000_0000 + (ulong)start));
                    if (ranges.Remove(start, out int mapped))
                    {
                        Array.Clear(model, start, mapped);
                    }

                    break;
                default:
                    byte[] data = new byte[1 << random.Next(3)];
                    bus.Read(0xF0_0000_0000 + (ulong)start, data);
                    bool whole = start + data.Length <= 256 && model[start] is not null
                        && Array.TrueForAll(model[start..(start + data.Length)], r => r == model[start]);
                    byte expected = whole ? model[start]!.Value : (byte)0xFF;
                    Assert.All(data, b => Assert.Equal(expected, b));
                    break;
            }

            Assert.Equal(ranges.Count, bus.Count);
        }
    }

    private sealed class Recorder(byte value) : IBusDevice
    {
        public byte Value => value;

        public int Writes { get; private set; }

        public ulong LastOffset { get; private set; }

        public void Read(ulong offset, Span<byte> data) => data.Fill(value);

        public void Write(ulong offset, ReadOnlySpan<byte> data)
        {
            Writes++;
            LastOffset = offset;
        }
    }
}
