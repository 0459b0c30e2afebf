using Vmm.Devices.Pci;

namespace Vmm.Devices.Tests.Pci;

/// <summary>A configuration space as a list of fields: masks, gaps, handlers, capabilities, against a model of bytes.</summary>
public sealed class PciConfigSpaceTests
{
    private readonly PciConfigSpace _config = new();

    [Fact]
    public void Software_changes_what_the_masks_say_and_nothing_else()
    {
        PciField field = _config.Add(new PciField(0x44, 4, 0xF0F0_1234) { Writable = 0x0000_FF00, ClearedByOnes = 0xF000_0000 });
        Write(0x44, 0xFF, 0xAB, 0xFF, 0x30);
        Assert.Equal(0xC0F0_AB34, field.Value);
        Write(0x45, 0xCD);
        Write(0x47, 0x00);
        Assert.Equal(0xC0F0_CD34, field.Value);
        Assert.Equal([0xCD, 0xF0], Read(0x45, 2));
        field.Value = uint.MaxValue; // the device's own
        _config.Reset();
        Assert.Equal(0xF0F0_1234, field.Value);
    }

    [Fact]
    public void Gaps_read_as_zeros_the_end_as_ones_and_writes_there_vanish()
    {
        _config.Add(new PciField(0xFFE, 2, 0xBEEF) { Writable = 0xFFFF });
        Write(0x100, 1, 2, 3, 4);
        Assert.Equal([0, 0, 0, 0], Read(0x100, 4));
        Assert.Equal([0, 0, 0xEF, 0xBE, 0xFF, 0xFF], Read(0xFFC, 6));
        Write(0xFFD, 9, 8, 7, 6);
        Assert.Equal([0, 8, 7, 0xFF], Read(0xFFD, 4));
        Assert.Equal([0xFF], Read(int.MaxValue, 1));
        Assert.Equal([0xFF], Read(-1, 1));
    }

    [Fact]
    public void Handlers_see_every_field_of_an_access_written_and_come_once_in_order()
    {
        List<(int, uint)> told = [];
        PciField low = new(0x40, 2, 0) { Writable = 0xFFFF }, middle = new(0x42, 1, 0) { Writable = 0xFF },
            high = new(0x44, 4, 0) { Writable = 0xFF };
        foreach (PciField field in (PciField[])[high, low, middle])
        {
            field.Written = f => told.Add((f.Offset, high.Value));
            _config.Add(field);
        }

        Write(0x41, 1, 2, 3, 4, 5);
        Assert.Equal([(0x40, 4u), (0x42, 4u), (0x44, 4u)], told);
        Write(0x43, 1);
        Assert.Equal(3, told.Count);
        low.Reading = f => f.Value++;
        Assert.Equal([0x01, 0x01], Read(0x40, 2));
        Assert.Equal([0x01], Read(0x41, 1));
        Assert.Equal(0x102u, low.Value); // once an access
    }

    [Fact]
    public void Fields_that_overlap_or_lie_askew_are_refused_by_their_place()
    {
        _config.Add(new PciField(0x48, 4, 0));
        foreach ((int offset, int width) in new[]
        {
            (0x48, 4), (0x4A, 2), (0x4B, 1), (0x06, 2), (0x4D, 2), (0x4E, 4), (0x50, 3), (0x50, 8), (-4, 4), (0x1000, 1), (0x34, 4)
        })
        {
            Assert.Throws<ArgumentException>(() => _config.Add(new PciField(offset, width, 0)));
        }
    }

    [Fact]
    public void Capabilities_follow_each_other_and_the_list_can_end_early()
    {
        Assert.Equal([0, 0, 0], [.. Read(0x34, 1), .. Read(6, 2)]);
        PciCapability first = _config.AddCapability(9, 13), second = _config.AddCapability(0x11, 12);
        second.Add(2, 2, 0x0007, 0xC000);
        Assert.Equal((0x40, 0x50), (first.Offset, second.Offset));
        Assert.Equal([0x40, 0x10, 0], [.. Read(0x34, 1), .. Read(6, 2)]);
        Assert.Equal([9, 0x50, 0x11, 0, 7, 0], [.. Read(0x40, 2), .. Read(0x50, 4)]);
        Assert.All((int[])[0, 1, 9, 11, -1], at => Assert.Throws<ArgumentException>(() => second.Add(at, 4, 0)));
        first.SetNext(0);
        _config.Reset();
        Assert.Equal([9, 0], Read(0x40, 2));
        _config.AddCapability(1, 0xA4); // up to the last byte
        Assert.Throws<InvalidOperationException>(() => _config.AddCapability(1, 1));
    }

    /// <summary>Any fields, any accesses: each byte is what a space of bytes and masks would hold.</summary>
    [Fact]
    public void Any_accesses_give_what_a_model_of_bytes_gives()
    {
        for (int seed = 0; seed < 200; seed++)
        {
            Random random = new(seed);
            PciConfigSpace config = new();
            byte[] bytes = new byte[PciConfigSpace.Size], writable = new byte[bytes.Length], cleared = new byte[bytes.Length];
            for (int at = 0x40; at < 0x80;)
            {
                int width = 1 << random.Next(3);
                at = (at + width - 1) & ~(width - 1);
                if (random.Next(4) > 0)
                {
                    uint mask = (uint)random.NextInt64(1L << 32), ones = (uint)random.NextInt64(1L << 32) & ~mask,
                        value = (uint)random.NextInt64(1L << 32);
                    config.Add(new PciField(at, width, value) { Writable = mask, ClearedByOnes = ones });
                    for (int i = 0; i < width; i++)
                    {
                        (bytes[at + i], writable[at + i], cleared[at + i]) =
                            ((byte)(value >> (8 * i)), (byte)(mask >> (8 * i)), (byte)(ones >> (8 * i)));
                    }
                }

                at += width;
            }

            for (int i = 0; i < 200; i++)
            {
                int offset = random.Next(0x3C, 0x80);
                byte[] data = new byte[random.Next(1, 9)];
                random.NextBytes(data);
                config.Write(offset, data);
                for (int j = 0; j < data.Length; j++)
                {
                    int at = offset + j;
                    bytes[at] = (byte)((bytes[at] & ~writable[at] & ~(data[j] & cleared[at])) | (data[j] & writable[at]));
                }

                offset = random.Next(0x3C, 0x80);
                config.Read(offset, data);
                Assert.Equal(bytes[offset..(offset + data.Length)], data);
            }
        }
    }

    private byte[] Read(int offset, int length)
    {
        byte[] data = new byte[length];
        data.AsSpan().Fill(0x5A);
        _config.Read(offset, data);
        return data;
    }

    private void Write(int offset, params byte[] data) => _config.Write(offset, data);
}
