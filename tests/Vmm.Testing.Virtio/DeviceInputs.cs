using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Xunit;

namespace Vmm.Testing.Virtio;

/// <summary>
/// Bytes of a fuzzer as what a driver does to a device: one chain and its data, or register accesses. Whatever they are, the device answers
/// or asks for a reset, soon,
/// and changes no memory that the chain did not give. One caller at a time.
/// </summary>
public sealed class DeviceInputs : IFuzzTarget
{
    private const int DescriptorBytes = 8, MostDescriptors = 12, AccessBytes = 12;
    private const byte OutsideRam = 0x80, IndirectHere = 0x40;
    private readonly string _target;
    private readonly DeviceBench _bench;
    private readonly DeviceGuest _guest;
    private readonly int _queue;

    public DeviceInputs(string target)
    {
        _target = target;
        (string device, _queue) = s_targets[target];
        _bench = DeviceRegistry.Create(device);
        _guest = new DeviceGuest(_bench.Device, TransportKind.Pci);
        _guest.Start();
    }

    private static readonly Dictionary<string, (string Device, int Queue)> s_targets = new(StringComparer.Ordinal)
    {
        ["chains"] = ("rng", 0),
        ["blk"] = ("blk", 0),
        ["net"] = ("net", 1),
        ["net-control"] = ("net", 4),
        ["vsock"] = ("vsock", 1),
        ["balloon"] = ("balloon", 0),
        ["balloon-report"] = ("balloon", 4),
        ["mem"] = ("mem", 0),
        ["console"] = ("console", 1),
        ["serial"] = ("serial", 5),
        ["serial-control"] = ("serial", 3),
        ["pci"] = ("blk", -1),
        ["msix"] = ("net", -1),
    };

    public static IEnumerable<string> Targets => s_targets.Keys;

    /// <summary>
    /// For a queue: number of descriptors, 8 bytes each (offset in the data area, length, flags, next), then the data area. For registers:
    /// 12 bytes each (where,
    /// width, value).
    /// </summary>
    public void Feed(ReadOnlySpan<byte> input)
    {
        if (_queue < 0)
        {
            Access(input);
        }
        else if (input.Length > 1)
        {
            Chain(input);
        }
    }

    /// <summary>The device works still.</summary>
    public void Heal() => _bench.Heal(_guest);

    /// <summary>The sound request of the target's queue as an input, to begin with.</summary>
    public byte[] Seed()
    {
        if (_queue < 0)
        {
            return [0, 4, 0, 4, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 1, 4, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        }

        Piece[] chain = _bench.Good(_guest, _queue);
        List<byte> seed = [(byte)chain.Length];
        for (int i = 0; i < chain.Length; i++)
        {
            int flags = (chain[i].Writable ? 2 : 0) | (i + 1 < chain.Length ? 1 : 0);
            seed.AddRange(BitConverter.GetBytes((ushort)(chain[i].At - DeviceGuest.DataOf(_queue))));
            seed.AddRange(BitConverter.GetBytes(chain[i].Length));
            seed.AddRange([(byte)flags, (byte)(i + 1)]);
        }

        seed.AddRange(_guest.At(DeviceGuest.DataOf(_queue), 128));
        return [.. seed];
    }

    public void Dispose()
    {
        _guest.Dispose();
        _bench.Dispose();
    }

    private void Chain(ReadOnlySpan<byte> input)
    {
        if (_guest.Broken)
        {
            _guest.Start();
        }

        int count = Math.Min(1 + (input[0] % MostDescriptors), (input.Length - 1) / DescriptorBytes);
        ReadOnlySpan<byte> data = input[(1 + (count * DescriptorBytes))..];
        ulong area = DeviceGuest.DataOf(_queue), table = DeviceGuest.TableOf(_queue);
        data[..Math.Min(data.Length, 0x4000)].CopyTo(_guest.At(area, 0x4000));
        // What an earlier input left would be part of this one.
        _guest.At(_guest.Plans[_queue].Table, 16 * 16).Clear();
        _guest.At(table, 16 * 16).Clear();
        List<Piece> given = [BalloonBench.Given(_queue)];
        bool known = !_target.StartsWith("balloon", StringComparison.Ordinal); // frame numbers give any page
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> d = input.Slice(1 + (i * DescriptorBytes), DescriptorBytes);
            ulong at = area + (BinaryPrimitives.ReadUInt16LittleEndian(d) & 0x7FFFu);
            uint length = BinaryPrimitives.ReadUInt32LittleEndian(d[2..]);
            length = (d[6] & OutsideRam) != 0 ? length : length & 0x7FFF;
            at = (d[6] & IndirectHere) != 0 ? table : (d[6] & OutsideRam) != 0 ? at * length : at;
            _guest.Put(_queue, i, at, length, d[6] & 7, d[7]);
            _guest.Put(table, i, at, length, d[6] & 3, d[7]);
            given.Add(new(at, length, true));
            known &= (d[6] & DeviceGuest.Indirect) == 0 || at == table; // a table in the data gives what it likes
        }

        _guest.Offer(_queue, 0);
        _guest.Watch();
        _guest.Kick(_queue);
        _guest.Wait(() => _guest.UsedCount(_queue) > 0 || _guest.Broken, $"{_target}: neither an answer nor a reset asked for");
        if (_guest.UsedCount(_queue) > 0)
        {
            Assert.Equal(0u, _guest.WaitUsed(_queue).Head);
        }

        if (known)
        {
            _guest.AssertContained([.. given]);
        }

        if (_bench is NetBench net)
        {
            net.Net.Clear();
        }
    }

    private void Access(ReadOnlySpan<byte> input)
    {
        PciPort port = (PciPort)_guest.Port;
        Span<byte> read = stackalloc byte[8];
        for (; input.Length >= AccessBytes; input = input[AccessBytes..])
        {
            uint offset = BinaryPrimitives.ReadUInt16LittleEndian(input[2..]);
            ulong at = (input[0] % 4) switch
            {
                0 => PciPort.Slot + (offset & 0xFFF),
                1 => PciPort.Bar + (offset & 0x3F),
                2 => PciPort.Bar + (_target == "msix" ? PciPort.TableAt + (offset & 0x2FFF) : offset & 0x7FFF),
                _ => 0xCF8 + (offset & 7),
            };
            Vmm.Devices.Bus.AddressBus bus = input[0] % 4 == 3 ? port.Ports : port.Bus;
            int width = 1 << (input[1] % 4);
            if ((input[0] & 0x80) == 0)
            {
                bus.Write(at, input.Slice(4, width));
            }
            else
            {
                bus.Read(at, read[..width]);
            }
        }

        port.EnableBus();
        Assert.Equal(0x1AF4u, port.Config(0, 2));
        port.Status = 0;
        Assert.Equal(0, port.Status);
    }
}
