using System.Buffers.Binary;
using Vmm.Devices.Virtio.Blk;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Devices.Tests.Virtio.Blk;

/// <summary>Image files in a folder of their own, and how overlays are put on disks that work.</summary>
internal sealed class SwitchFolder : IDisposable
{
    public const int Capacity = 8 << 20;

    public string Folder { get; } = Directory.CreateTempSubdirectory("vmm-sw-").FullName;

    public string PathOf(string name) => Path.Combine(Folder, name);

    /// <summary>A raw disk of random content.</summary>
    public IDetachableDisk Raw(string name, out byte[] content)
    {
        content = new byte[Capacity];
        new Random(3).NextBytes(content);
        File.WriteAllBytes(PathOf(name), content);
        return RawFileBackend.Open(PathOf(name));
    }

    /// <summary>A qcow2 disk over a raw base of random content.</summary>
    public IDetachableDisk Qcow2(string name, out byte[] content)
    {
        Raw(name + ".base", out content).Dispose();
        Create(name, name + ".base", "raw");
        return DiskImageChain.Open(PathOf(name), new RawFileOptions()).ToDisk();
    }

    /// <summary>Makes a differencing disk; its file, open and locked.</summary>
    public RawImageFile Overlay(string name, string below, string format)
    {
        Create(name, below, format);
        return new RawImageFile(RawFileBackend.Open(PathOf(name), new RawFileOptions { IsImage = true }));
    }

    public void Create(string name, string below, string format, ulong size = Capacity) => Qcow2Creator.Create(
        PathOf(name), new Qcow2CreateOptions { DiskSize = size, BackingFile = PathOf(below), BackingFormat = format });

    /// <summary>What the disk of an image holds, as qemu-img reads it.</summary>
    public byte[] Content(string name, string format)
    {
        Storage.Tests.Qcow2.QemuImg.Run("convert", "-f", format, "-O", "raw", PathOf(name), PathOf("out"));
        return File.ReadAllBytes(PathOf("out"));
    }

    public void Dispose() => Directory.Delete(Folder, recursive: true);

    /// <summary>Puts an overlay on a device; the old top is a base then.</summary>
    public static DiskSwitchPart Snapshot(VirtioBlk device, RawImageFile overlay) =>
        new(device, old => Qcow2Disk.Over([new ImageLayer(overlay, ImageFormat.Qcow2), .. old.Layers]));
}

/// <summary>A driver with several queues: for each a thread writes and reads its own part of the disk, and knows what is there.</summary>
internal sealed class SwitchLoad : IDisposable
{
    private readonly DeviceGuest _guest;
    private readonly byte[] _model;
    private readonly Lane[] _lanes;
    private volatile bool _stop;
    private Exception? _failure;

    public SwitchLoad(VirtioBlk device, byte[] model)
    {
        _guest = new DeviceGuest(device, TransportKind.Pci);
        _guest.Start();
        _model = model;
        _lanes = [.. Enumerable.Range(0, _guest.Queues).Select(queue => new Lane { Queue = queue })];
        foreach (Lane lane in _lanes)
        {
            lane.Thread = new Thread(() => Run(lane));
            lane.Thread.Start();
        }
    }

    public long Writes => _lanes.Sum(lane => Volatile.Read(ref lane.Writes));

    public void RunFor(int writes)
    {
        long end = Writes + writes;
        Assert.True(SpinWait.SpinUntil(() => _failure is not null || Writes >= end, 60_000) && _failure is null, $"{_failure}");
    }

    /// <summary>What the disk has at this moment; a write that goes on may be there or not.</summary>
    public Instant Now()
    {
        Instant now = new((byte[])_model.Clone(), []);
        foreach (Lane lane in _lanes)
        {
            lock (lane)
            {
                int begin = lane.Queue * (_model.Length / _lanes.Length), length = _model.Length / _lanes.Length;
                _model.AsSpan(begin, length).CopyTo(now.Content.AsSpan(begin));
                if (lane.Data is { } data)
                {
                    now.Pending.Add((lane.At, (byte[])data.Clone())); // the lane reads into it next
                }
            }
        }

        return now;
    }

    public void Dispose()
    {
        _stop = true;
        foreach (Lane lane in _lanes)
        {
            lane.Thread!.Join();
        }

        _guest.Dispose();
        Assert.Null(_failure);
    }

    private void Run(Lane lane)
    {
        Random random = new(lane.Queue);
        try
        {
            while (!_stop)
            {
                Step(lane, random);
            }
        }
        catch (Exception failure)
        {
            _failure = failure;
        }
    }

    private void Step(Lane lane, Random random)
    {
        int part = _model.Length / _lanes.Length, sectors = random.Next(1, 48), length = sectors * 512;
        int at = (lane.Queue * part) + (random.Next((part / 512) - sectors) * 512);
        byte[] data = new byte[length];
        random.NextBytes(data);
        lock (lane)
        {
            (lane.At, lane.Data) = (at, data);
        }

        Assert.Equal(0, Request(lane.Queue, 1, at, data));
        lock (lane)
        {
            data.CopyTo(_model.AsSpan(at));
            lane.Data = null;
        }

        Interlocked.Increment(ref lane.Writes);
        at = (lane.Queue * part) + (random.Next((part / 512) - sectors) * 512);
        Assert.Equal(0, Request(lane.Queue, 0, at, data));
        Assert.True(data.AsSpan().SequenceEqual(_model.AsSpan(at, length)), $"queue {lane.Queue}, byte {at}");
        if (random.Next(20) == 0)
        {
            Assert.Equal(0, Request(lane.Queue, 4, 0, []));
        }
    }

    private byte Request(int queue, uint type, int at, byte[] data)
    {
        ulong memory = DeviceGuest.DataOf(queue), buffer = memory + 0x1000;
        BinaryPrimitives.WriteUInt32LittleEndian(_guest.At(memory, 4), type);
        BinaryPrimitives.WriteUInt64LittleEndian(_guest.At(memory + 8, 8), (ulong)(at / 512));
        _guest.At(memory + 64, 1)[0] = 0xEE;
        Piece header = new(memory, 16, false), status = new(memory + 64, 1, true);
        if (data.Length == 0)
        {
            _guest.Request(queue, header, status);
            return _guest.At(memory + 64, 1)[0];
        }

        if (type == 1)
        {
            data.CopyTo(_guest.At(buffer, data.Length));
        }

        _guest.Request(queue, header, new Piece(buffer, (uint)data.Length, type == 0), status);
        _guest.At(buffer, data.Length).CopyTo(data);
        return _guest.At(memory + 64, 1)[0];
    }

    private sealed class Lane
    {
        public int Queue, At;
        public byte[]? Data;
        public long Writes;
        public Thread? Thread;
    }
}

/// <summary>What a disk had at one moment.</summary>
internal sealed record Instant(byte[] Content, List<(int At, byte[] Data)> Pending)
{
    public void AssertIs(byte[] disk)
    {
        foreach ((int at, byte[] data) in Pending)
        {
            Span<byte> there = disk.AsSpan(at, data.Length);
            Assert.True(there.SequenceEqual(data) || there.SequenceEqual(Content.AsSpan(at, data.Length)), $"half a write at {at}");
            there.CopyTo(Content.AsSpan(at));
        }

        Assert.Equal(Content.Length, disk.Length);
        Assert.Equal(Content.Length, disk.AsSpan().CommonPrefixLength(Content));
    }
}
