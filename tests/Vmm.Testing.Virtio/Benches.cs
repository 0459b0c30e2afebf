using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Balloon;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Console;
using Vmm.Devices.Virtio.Mem;
using Vmm.Devices.Virtio.Net;
using Vmm.Devices.Virtio.Rng;
using Vmm.Devices.Virtio.Vsock;
using Vmm.Memory;
using Vmm.Storage;
using Xunit;

namespace Vmm.Testing.Virtio;

/// <summary>A disk of 128 sectors in memory, with two queues.</summary>
public sealed class BlkBench : DeviceBench
{
    public const int Sectors = 128;

    public BlkBench(int queues = 2, bool readOnly = false)
    {
        Content = new MemoryDiskBackend(Sectors * 512, readOnly);
        new Random(5).NextBytes(Content.Content);
        Disk = new FaultyDisk(Content);
        Blk = new VirtioBlk(Disk, new VirtioBlkOptions { QueueCount = queues, QueueSize = 64, Serial = "hostile", PollMicroseconds = 0 });
    }

    public MemoryDiskBackend Content { get; }

    public FaultyDisk Disk { get; }

    public VirtioBlk Blk { get; }

    public override VirtioDevice Device => Blk;

    public override QueueRole Role(int queue) => QueueRole.Served;

    public override Piece[] Good(DeviceGuest guest, int queue)
    {
        ulong at = DeviceGuest.DataOf(queue);
        Put32(guest, at, 0); // a read
        Put32(guest, at + 4, 0);
        Put64(guest, at + 8, 3);
        guest.At(at + 0x4000, 1)[0] = 0xEE;
        return [new(at, 16, false), new(at + 0x1000, 512, true), new(at + 0x4000, 1, true)];
    }

    public override void Check(DeviceGuest guest, int queue, uint written)
    {
        ulong at = DeviceGuest.DataOf(queue);
        Assert.Equal((513u, (byte)0), (written, guest.At(at + 0x4000, 1)[0]));
        Assert.True(guest.At(at + 0x1000, 512).SequenceEqual(Content.Content.AsSpan(3 * 512, 512)));
    }
}

/// <summary>A network device over sockets in memory; with pairs beyond the first that the driver does not use.</summary>
public sealed class NetBench : DeviceBench
{
    private readonly int _pairs;

    public NetBench(int pairs)
    {
        _pairs = pairs;
        Net = new MemoryNet(pairs);
        NetDevice = new VirtioNet(Net, new VirtioNetOptions { Mac = new byte[] { 0x52, 0x54, 0, 1, 2, 3 }, PollMicroseconds = 0 });
    }

    public MemoryNet Net { get; }

    public VirtioNet NetDevice { get; }

    public override VirtioDevice Device => NetDevice;

    private int Control => 2 * _pairs;

    public override QueueRole Role(int queue) =>
        queue == 0 ? QueueRole.Prompted : queue < Control && queue % 2 == 0 ? QueueRole.Ignored : QueueRole.Served;

    public override Piece[] Good(DeviceGuest guest, int queue)
    {
        ulong at = DeviceGuest.DataOf(queue);
        if (queue == Control)
        {
            guest.At(at, 3).Clear(); // receive mode, promiscuous, off
            guest.At(at + 64, 1)[0] = 0xEE;
            return [new(at, 2, false), new(at + 2, 1, false), new(at + 64, 1, true)];
        }

        if (queue % 2 == 0)
        {
            return [new(at, 12, true), new(at + 0x1000, 2036, true)];
        }

        guest.At(at, 72).Clear();
        return [new(at, 12, false), new(at + 12, 60, false)];
    }

    public override void Prompt(DeviceGuest guest, int queue) => Net.TrySend(0, new byte[60]);

    public override void Check(DeviceGuest guest, int queue, uint written)
    {
        Assert.Equal(queue == Control ? 1u : queue == 0 ? 72u : 0, written);
        if (queue == Control)
        {
            Assert.Equal(0, guest.At(DeviceGuest.DataOf(queue) + 64, 1)[0]);
        }
        else if (queue > 0)
        {
            Assert.NotNull(Net.Receive(queue / 2));
        }
    }
}

public sealed class RngBench : DeviceBench
{
    public override VirtioDevice Device { get; } = new VirtioRng();

    public override QueueRole Role(int queue) => QueueRole.Served;

    public override Piece[] Good(DeviceGuest guest, int queue)
    {
        ulong at = DeviceGuest.DataOf(queue);
        guest.At(at, 64).Clear();
        return [new(at, 32, true), new(at + 32, 32, true)];
    }

    public override void Check(DeviceGuest guest, int queue, uint written)
    {
        Assert.Equal(64u, written);
        Assert.True(guest.At(DeviceGuest.DataOf(queue), 64).IndexOfAnyExcept((byte)0) >= 0);
    }
}

/// <summary>
/// A balloon with every feature of ours. Queue 3 is of free page hints, which are not offered (virtio 1.2 section 5.5.2).
/// </summary>
public sealed class BalloonBench : DeviceBench
{
    public VirtioBalloon Balloon { get; } = new();

    public override VirtioDevice Device => Balloon;

    public override QueueRole Role(int queue) => queue switch
    {
        2 => QueueRole.Prompted,
        3 => QueueRole.Ignored,
        _ => QueueRole.Served,
    };

    public override Piece[] Good(DeviceGuest guest, int queue)
    {
        ulong at = DeviceGuest.DataOf(queue);
        switch (queue)
        {
            case 2:
                guest.At(at, 20).Clear();
                return [new(at, 10, false), new(at + 10, 10, false)];
            case 4:
                return [new(at + 0x1000, 4096, true), new(at + 0x3000, 4096, true)];
            default:
                Put32(guest, at, (uint)(at >> 12) + 1);
                Put32(guest, at + 4, (uint)(at >> 12) + 2);
                return [new(at, 4, false), new(at + 4, 4, false)];
        }
    }

    /// <summary>What a good request gives to the host besides its pieces.</summary>
    public static Piece Given(int queue) => new(DeviceGuest.DataOf(queue) + 0x1000, 0x2000, true);

    public override void Prompt(DeviceGuest guest, int queue) => Balloon.RequestStatistics();
}

/// <summary>A memory device with a region of 64 blocks that is not the guest's RAM.</summary>
public sealed class MemBench : DeviceBench, IPluggableMemory
{
    public const ulong Start = 4UL << 30, Block = 2 << 20;
    public const int Blocks = 64;

    public MemBench() => Mem = new VirtioMem(
        new VirtioMemOptions { Start = new(Start), Length = new ByteSize(Blocks * Block), Requested = new ByteSize(32 * Block), Vnode = 0 },
        this);

    public VirtioMem Mem { get; }

    /// <summary>What the device did to the memory: +first x count, -first x count.</summary>
    public List<string> Calls { get; } = [];

    /// <summary>The host has no memory now.</summary>
    public bool Full { get; set; }

    public override VirtioDevice Device => Mem;

    public override QueueRole Role(int queue) => QueueRole.Served;

    public override Piece[] Good(DeviceGuest guest, int queue) => Ask(guest, 3, Start, 1); // STATE

    public static Piece[] Ask(DeviceGuest guest, ushort kind, ulong address, ushort blocks)
    {
        ulong at = DeviceGuest.DataOf(0);
        guest.At(at, 24).Clear();
        BinaryPrimitives.WriteUInt16LittleEndian(guest.At(at, 2), kind);
        Put64(guest, at + 8, address);
        BinaryPrimitives.WriteUInt16LittleEndian(guest.At(at + 16, 2), blocks);
        guest.At(at + 64, 10).Fill(0xEE);
        return [new(at, 24, false), new(at + 64, 10, true)];
    }

    public override void Check(DeviceGuest guest, int queue, uint written)
    {
        Assert.Equal(10u, written);
        Assert.Equal(0, guest.At(DeviceGuest.DataOf(0) + 64, 1)[0]); // ACK
    }

    public bool TryPlug(ulong offset, ulong length)
    {
        Calls.Add($"+{offset / Block}x{length / Block}");
        return !Full;
    }

    public void Unplug(ulong offset, ulong length) => Calls.Add($"-{offset / Block}x{length / Block}");

    public bool TryRestore(ReadOnlySpan<bool> plugged)
    {
        Calls.Add($"={plugged.Count(true)}");
        return !Full;
    }
}

public sealed class ConsoleBench : DeviceBench, IConsoleSink
{
    private readonly List<byte> _output = [];

    public ConsoleBench() => Console = new VirtioConsole(this);

    public VirtioConsole Console { get; }

    public override VirtioDevice Device => Console;

    /// <summary>What the guest wrote; the first megabyte.</summary>
    public byte[] Output
    {
        get
        {
            lock (_output)
            {
                return [.. _output];
            }
        }
    }

    public override QueueRole Role(int queue) => queue == 0 ? QueueRole.Prompted : QueueRole.Served;

    public override Piece[] Good(DeviceGuest guest, int queue)
    {
        ulong at = DeviceGuest.DataOf(queue);
        return [new(at, 8, queue == 0), new(at + 8, 8, queue == 0)];
    }

    public override void Prompt(DeviceGuest guest, int queue) => Console.Send("?"u8);

    public override void Check(DeviceGuest guest, int queue, uint written) => Assert.True(queue == 0 ? written > 0 : written == 0);

    public void Write(ReadOnlySpan<byte> bytes)
    {
        lock (_output)
        {
            if (_output.Count < 1 << 20)
            {
                _output.AddRange(bytes);
            }
        }
    }

    protected override void CleanUp() => Console.Close();
}

/// <summary>
/// A socket device; a packet that belongs to nothing makes it answer on the receive queue. No event ever comes (5.10.6.7).
/// </summary>
public sealed class VsockBench : DeviceBench
{
    public const ulong Cid = 7;
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-hostile-").FullName;

    public VsockBench() => Vsock = new VirtioVsock(Cid, SocketPath);

    public VirtioVsock Vsock { get; }

    public string SocketPath => Path.Combine(_folder, "v");

    public override VirtioDevice Device => Vsock;

    public override QueueRole Role(int queue) => queue switch { 0 => QueueRole.Prompted, 1 => QueueRole.Served, _ => QueueRole.Ignored };

    /// <summary>What is sent into it uses up buffers of its other queue.</summary>
    public override bool ServesOthers(int queue) => true;

    public override Piece[] Good(DeviceGuest guest, int queue)
    {
        ulong at = DeviceGuest.DataOf(queue);
        if (queue != 1)
        {
            return [new(at, 44, true), new(at + 0x1000, 4096, true)];
        }

        PutHeader(guest, at, operation: 3); // a reset of nothing, which nothing answers
        return [new(at, 22, false), new(at + 22, 22, false)];
    }

    /// <summary>A packet of the guest to the host.</summary>
    public static void PutHeader(
        DeviceGuest guest, ulong at, ushort operation, uint port = 4, uint hostPort = 9, uint length = 0, ushort type = 1, uint flags = 0,
        ulong source = Cid, ulong destination = 2, uint buffer = 1 << 18, uint forwarded = 0)
    {
        Span<byte> h = guest.At(at, 44);
        BinaryPrimitives.WriteUInt64LittleEndian(h, source);
        BinaryPrimitives.WriteUInt64LittleEndian(h[8..], destination);
        BinaryPrimitives.WriteUInt32LittleEndian(h[16..], port);
        BinaryPrimitives.WriteUInt32LittleEndian(h[20..], hostPort);
        BinaryPrimitives.WriteUInt32LittleEndian(h[24..], length);
        BinaryPrimitives.WriteUInt16LittleEndian(h[28..], type);
        BinaryPrimitives.WriteUInt16LittleEndian(h[30..], operation);
        BinaryPrimitives.WriteUInt32LittleEndian(h[32..], flags);
        BinaryPrimitives.WriteUInt32LittleEndian(h[36..], buffer);
        BinaryPrimitives.WriteUInt32LittleEndian(h[40..], forwarded);
    }

    public override void Prompt(DeviceGuest guest, int queue)
    {
        ulong at = DeviceGuest.DataOf(1) + 0x2000;
        PutHeader(guest, at, operation: 5); // data of no connection
        guest.Post(1, new Piece(at, 44, false));
        guest.Wait(() => guest.UsedCount(1) > 0 || guest.Broken, "the packet is not taken");
        if (guest.UsedCount(1) > 0)
        {
            guest.WaitUsed(1);
        }
    }

    public override void Check(DeviceGuest guest, int queue, uint written) => Assert.Equal(queue == 0 ? 44u : 0, written);

    protected override void CleanUp() => Directory.Delete(_folder, recursive: true);
}
