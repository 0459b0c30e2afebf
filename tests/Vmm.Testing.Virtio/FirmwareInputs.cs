using System.Buffers.Binary;
using Vmm.Devices.Bus;
using Vmm.Devices.Firmware;
using Xunit;

namespace Vmm.Testing.Virtio;

/// <summary>
/// Bytes of a fuzzer as accesses of what firmware uses: the configuration device, the flash of its variables, its debug port. Whatever they
/// are, the configuration device changes no memory but what a request gave it, and the flash shows its array exactly when it reads as one.
/// </summary>
public sealed class FirmwareInputs : IFuzzTarget
{
    private const int AccessBytes = 12, RequestBytes = 16;
    private const byte Reads = 0x80, Requests = 0x40;
    private const uint Error = 1, ReadIt = 2;
    private const ulong RequestAt = 0x8000;
    private const int FlashBytes = 4 * CfiFlash.BlockBytes;

    private readonly GuestRam _ram = new();
    private readonly byte[] _before = new byte[GuestRam.Bytes];
    private readonly Flash _memory = new();
    private readonly string _target;
    private readonly IBusDevice _device;
    private int _longest, _lines;
    private uint _high;

    public FirmwareInputs(string target)
    {
        _target = target;
        FwCfgItems items = new();
        items.Add(FwCfgItems.CpuCount, 2);
        items.AddFile("etc/one", [.. Enumerable.Range(0, 300).Select(i => (byte)i)]);
        items.AddFile("etc/most", new byte[FwCfg.MostBytes]);
        _device = target switch
        {
            "fwcfg" => new FwCfg(items, _ram.Memory.Dma),
            "flash" => new CfiFlash(_memory),
            _ => new FirmwareOutput(line => (_longest, _lines) = (Math.Max(_longest, line.Length), _lines + 1), () => 0),
        };
    }

    public static IEnumerable<string> Targets => ["fwcfg", "flash", "debug-port"];

    /// <summary>
    /// 12 bytes each: how (read, or write; of the configuration device also a request that follows as a whole), width, where, value. A
    /// request takes the 16 bytes behind them as well.
    /// </summary>
    public void Feed(ReadOnlySpan<byte> input)
    {
        Span<byte> read = stackalloc byte[8];
        for (; input.Length >= AccessBytes; input = input[AccessBytes..])
        {
            int width = 1 << (input[1] % 4);
            ulong at = Where(BinaryPrimitives.ReadUInt16LittleEndian(input[2..]), width);
            if (_target == "fwcfg" && (input[0] & Requests) != 0 && input.Length >= AccessBytes + RequestBytes)
            {
                Request(input.Slice(AccessBytes, RequestBytes));
                input = input[RequestBytes..];
            }
            else if ((input[0] & Reads) != 0)
            {
                _device.Read(at, read[..width]);
            }
            else
            {
                Write(at, input.Slice(4, width));
            }
        }

        Check();
    }

    public void Heal()
    {
        switch (_target)
        {
            case "fwcfg":
                byte[] item = new byte[1];
                Write(0, [0, 0]);
                string found = string.Concat(Enumerable.Range(0, 4).Select(_ =>
                {
                    _device.Read(1, item);
                    return (char)item[0];
                }));
                Assert.Equal("QEMU", found);
                break;
            case "flash":
                byte[] first = new byte[1];
                _device.Write(0, [0xFF]); // whatever it was in the middle of is over with the second
                _device.Write(0, [0xFF]);
                _device.Read(0, first);
                Assert.Equal((true, _memory.Bytes[0]), (_memory.IsShown, first[0]));
                break;
            default:
                Assert.InRange(_lines, 0, FirmwareOutput.Burst);
                break;
        }
    }

    public byte[] Seed() => _target switch
    {
        "fwcfg" =>
        [
            0, 1, 0, 0, 0x19, 0, 0, 0, 0, 0, 0, 0, Reads, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            Requests, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0x0A, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x90, 0,
        ],
        "flash" =>
        [
            0, 0, 5, 0x10, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0x10, 0xD0, 0, 0, 0, 0, 0, 0, 0,
            Reads, 0, 5, 0x10, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
        _ => [.. "firmware\n"u8.ToArray().SelectMany(c => new byte[] { 0, 0, 0, 0, c, 0, 0, 0, 0, 0, 0, 0 })],
    };

    public void Dispose() => _ram.Dispose();

    // An access never leaves its device: the bus cuts what would.
    private ulong Where(ushort offset, int width) => _target switch
    {
        "fwcfg" => Math.Min((ulong)offset % FwCfg.Length, FwCfg.Length - (ulong)width),
        "flash" => Math.Min((ulong)offset % FlashBytes, (ulong)(FlashBytes - width)),
        _ => 0,
    };

    private void Request(ReadOnlySpan<byte> request)
    {
        request.CopyTo(_ram.All[(int)RequestAt..]);
        Span<byte> address = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(address, RequestAt);
        Write(4, address);
        uint answer = BinaryPrimitives.ReadUInt32BigEndian(_ram.All[(int)RequestAt..]);
        ulong target = BinaryPrimitives.ReadUInt64BigEndian(request[8..]);
        bool over = target <= RequestAt + 3 && target + BinaryPrimitives.ReadUInt32BigEndian(request[4..]) > RequestAt;
        Assert.True(over || answer is 0 or Error, $"a request was left with {answer:x}");
    }

    /// <summary>A write that may carry a request out: nothing but its answer and its target changes.</summary>
    private void Write(ulong at, ReadOnlySpan<byte> data)
    {
        if (_target != "fwcfg" || at < 4)
        {
            _device.Write(at, data);
            return;
        }

        _ram.All.CopyTo(_before);
        _device.Write(at, data);
        if (RequestOf(at, data) is { } request && request <= GuestRam.Bytes - RequestBytes)
        {
            ReadOnlySpan<byte> words = _before.AsSpan((int)request, RequestBytes).ToArray();
            Allow(request, 4);
            if ((words[3] & ReadIt) != 0)
            {
                Allow(BinaryPrimitives.ReadUInt64BigEndian(words[8..]), BinaryPrimitives.ReadUInt32BigEndian(words[4..]));
            }
        }

        int first = _before.AsSpan().CommonPrefixLength(_ram.All);
        Assert.True(first == GuestRam.Bytes, $"memory changed at 0x{first:x}, which no request gave");
    }

    // Where a request is follows from one write of eight bytes, or from two of four.
    private ulong? RequestOf(ulong at, ReadOnlySpan<byte> data)
    {
        switch (at, data.Length)
        {
            case (4, 8):
                _high = 0;
                return BinaryPrimitives.ReadUInt64BigEndian(data);
            case (4, 4):
                _high = BinaryPrimitives.ReadUInt32BigEndian(data);
                return null;
            case (8, 4):
                ulong request = ((ulong)_high << 32) | BinaryPrimitives.ReadUInt32BigEndian(data);
                _high = 0;
                return request;
            default:
                return null;
        }
    }

    private void Allow(ulong from, ulong length)
    {
        if (from < GuestRam.Bytes && length <= FwCfg.MostBytes && length <= GuestRam.Bytes - from)
        {
            _ram.All.Slice((int)from, (int)length).CopyTo(_before.AsSpan((int)from));
        }
    }

    private void Check()
    {
        if (_target == "flash")
        {
            Span<byte> read = stackalloc byte[1];
            _device.Read(0, read);
            Assert.True(!_memory.IsShown || read[0] == _memory.Bytes[0], "the flash shows its array and reads as something else");
        }
        else if (_target == "debug-port")
        {
            Assert.InRange(_longest, 0, FirmwareOutput.LongestLine + 40);
        }
    }

    private sealed class Flash : IFlashMemory
    {
        private readonly byte[] _bytes = new byte[FlashBytes];

        internal bool IsShown { get; private set; } = true;

        public Span<byte> Bytes => _bytes;

        public void Show(bool array)
        {
            Assert.NotEqual(IsShown, array); // a mapping is not made twice, nor removed twice
            IsShown = array;
        }
    }
}
