using System.Buffers.Binary;
using System.Text;
using Vmm.Devices.Firmware;
using Vmm.Devices.Tests.Virtio;

namespace Vmm.Devices.Tests.Firmware;

/// <summary>The configuration device as firmware reads it, byte by byte and by requests in memory, and as a hostile guest might.</summary>
public sealed class FwCfgTests : IDisposable
{
    private const ulong Request = 0x1000, Target = 0x2000;
    private const uint Error = 1, ReadIt = 2, SkipIt = 4, SelectIt = 8, WriteIt = 16;

    private readonly RingRam _ram = new();
    private readonly FwCfgItems _items = new();
    private readonly FwCfg _device;

    public FwCfgTests()
    {
        _items.Add(FwCfgItems.CpuCount, 300);
        _items.AddFile("etc/first", [1, 2, 3, 4, 5]);
        _items.AddFile("etc/second", [.. Enumerable.Range(0, 256).Select(i => (byte)i)]);
        _device = new FwCfg(_items, _ram.Memory.Dma);
    }

    public void Dispose() => _ram.Dispose();

    [Fact]
    public void Firmware_finds_the_device_its_revision_and_items_and_zeros_behind_them()
    {
        Assert.Equal("QEMU"u8, Take(FwCfgItems.Signature, 4));
        Assert.Equal([3, 0, 0, 0, 0, 0], Take(FwCfgItems.Revision, 6));
        Assert.Equal(300, BinaryPrimitives.ReadUInt16LittleEndian(Take(FwCfgItems.CpuCount, 2)));
        Assert.Equal([0, 0], Take(0x1234, 2));
        byte[] address = new byte[8];
        _device.Read(4, address);
        Assert.Equal("QEMU CFG"u8, address);
    }

    [Fact]
    public void The_directory_names_every_file_with_its_length_and_number()
    {
        byte[] directory = Take(FwCfgItems.Directory, 4 + 128);
        Assert.Equal(2, BinaryPrimitives.ReadInt32BigEndian(directory));
        Assert.Equal(5, BinaryPrimitives.ReadInt32BigEndian(directory.AsSpan(4)));
        Assert.Equal(256, BinaryPrimitives.ReadInt32BigEndian(directory.AsSpan(68)));
        ushort number = BinaryPrimitives.ReadUInt16BigEndian(directory.AsSpan(72));
        Assert.Equal("etc/second", Encoding.ASCII.GetString(directory.AsSpan(76, 10)));
        Assert.Equal([0, 1, 2], Take(number, 3));
    }

    [Fact]
    public void A_request_selects_skips_and_reads_with_zeros_behind_the_end()
    {
        _ram.Ram.Slice((int)Target, 16).Fill(0xEE);
        Assert.Equal(0u, Carry(SelectIt | SkipIt | ((uint)FwCfgItems.FirstFile << 16), 3, 0));
        Assert.Equal(0u, Carry(ReadIt, 4, Target));
        Assert.Equal([4, 5, 0, 0, 0xEE], _ram.Ram.Slice((int)Target, 5).ToArray());
    }

    [Fact]
    public void A_file_keeps_its_length_and_gets_other_bytes()
    {
        _items.Replace("etc/first", [9, 8, 7, 6, 5]);
        Assert.Equal([9, 8, 7, 6, 5], Take(FwCfgItems.FirstFile, 5));
        Assert.Throws<ArgumentException>(() => _items.Replace("etc/first", [1]));
        Assert.Throws<ArgumentException>(() => _items.Replace("etc/third", [1]));
    }

    [Theory]
    [InlineData("")]
    [InlineData("etc/first")]
    [InlineData("etc/ümlaut")]
    [InlineData("a-name-of-fifty-six-bytes-which-is-one-more-than-there-is")]
    public void A_name_that_no_firmware_could_find_is_refused(string name) =>
        Assert.Throws<ArgumentException>(() => _items.AddFile(name, [1]));

    [Theory]
    [InlineData(ReadIt, FwCfg.MostBytes + 1, Target)] // too long
    [InlineData(ReadIt, uint.MaxValue, 0)]
    [InlineData(ReadIt, 16, RingRam.Bytes - 8)]       // over the end of memory
    [InlineData(ReadIt, 16, ulong.MaxValue - 4)]
    [InlineData(WriteIt, 1, Target)]                  // items are not written
    public void A_request_that_cannot_be_carried_out_fails_and_touches_nothing(uint control, uint length, ulong address)
    {
        byte[] before = _ram.Ram[(int)Target..].ToArray();
        Assert.Equal(Error, Carry(SelectIt | control | ((uint)FwCfgItems.FirstFile << 16), length, address));
        Assert.Equal(before, _ram.Ram[(int)Target..]);
    }

    [Fact]
    public void A_request_outside_memory_is_forgotten()
    {
        byte[] before = _ram.Ram.ToArray();
        foreach (ulong at in (ulong[])[RingRam.Bytes, RingRam.Bytes - 15, ulong.MaxValue, ulong.MaxValue - 15])
        {
            Start(at);
        }

        Assert.Equal(before, _ram.Ram);
    }

    [Fact]
    public void Saved_state_goes_on_amid_an_item()
    {
        _ = Take(FwCfgItems.FirstFile, 2);
        FwCfg other = new(_items, _ram.Memory.Dma);
        other.Restore(_device.Capture());
        byte[] next = new byte[1];
        other.Read(1, next);
        Assert.Equal(3, next[0]);
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Whatever_a_guest_writes_no_byte_outside_request_and_target_changes()
    {
        Random random = new(15);
        for (int i = 0; i < 20_000; i++)
        {
            ulong address = random.Next(3) == 0 ? (ulong)random.NextInt64() : (ulong)random.Next(RingRam.Bytes);
            uint length = random.Next(3) == 0 ? (uint)random.NextInt64(uint.MaxValue) : (uint)random.Next(300);
            _ram.Ram.Clear();
            _ = Carry((uint)random.NextInt64(uint.MaxValue), length, address);
            ulong end = address < RingRam.Bytes ? Math.Min(address + length, RingRam.Bytes) : 0;
            int changed = _ram.Ram[..(int)Request].LastIndexOfAnyExcept((byte)0);
            Assert.True(changed < 0 || ((ulong)changed >= address && (ulong)changed < end), $"byte {changed} changed");
            int behind = _ram.Ram[((int)Request + 16)..].IndexOfAnyExcept((byte)0) + (int)Request + 16;
            Assert.True(
                behind < (int)Request + 16 + 1 || ((ulong)behind >= address && (ulong)behind < end), $"byte {behind} changed");
        }

        Legacy.DeviceFuzz.Run(_device, (int)FwCfg.Length, seed: 15, steps: 20_000);
    }

    private byte[] Take(ushort key, int count)
    {
        byte[] number = new byte[2];
        BinaryPrimitives.WriteUInt16LittleEndian(number, key);
        _device.Write(0, number);
        byte[] data = new byte[count];
        for (int i = 0; i < count; i++)
        {
            _device.Read(1, data.AsSpan(i, 1));
        }

        return data;
    }

    private uint Carry(uint control, uint length, ulong address)
    {
        Span<byte> request = _ram.Ram.Slice((int)Request, 16);
        BinaryPrimitives.WriteUInt32BigEndian(request, control);
        BinaryPrimitives.WriteUInt32BigEndian(request[4..], length);
        BinaryPrimitives.WriteUInt64BigEndian(request[8..], address);
        Start(Request);
        return BinaryPrimitives.ReadUInt32BigEndian(_ram.Ram[(int)Request..]);
    }

    private void Start(ulong at)
    {
        byte[] half = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(half, (uint)(at >> 32));
        _device.Write(4, half);
        BinaryPrimitives.WriteUInt32BigEndian(half, (uint)at);
        _device.Write(8, half);
    }
}
