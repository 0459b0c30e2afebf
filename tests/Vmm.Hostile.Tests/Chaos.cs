namespace Vmm.Hostile.Tests;

/// <summary>
/// Every device twice, behind PCI and behind MMIO, on one RAM in which all their rings lie on top of each other, driven by several
/// processors that do nothing but
/// harm: rings, registers, BARs and features change while requests are served, and the RAM itself comes and goes. Seeded; threads make two
/// runs differ all the same.
/// </summary>
internal sealed class Chaos : IDisposable
{
    private const int MostTyped = 3000; // less than a console keeps: nobody waits for its guest to read
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);
    private readonly GuestRam _ram = new();
    private readonly List<(DeviceBench Bench, DeviceGuest Guest)> _devices = [];
    private readonly int _seed;
    private volatile Exception? _failure;
    private volatile bool _stopping;
    private int _typed;
    private long _progress;

    public Chaos(int seed)
    {
        _seed = seed;
        foreach (string name in DeviceRegistry.Names)
        {
            foreach (TransportKind kind in Enum.GetValues<TransportKind>())
            {
                DeviceBench bench = DeviceRegistry.Create(name);
                _devices.Add((bench, new DeviceGuest(bench.Device, kind, _ram)));
            }
        }
    }

    /// <summary>So many harmful actions, then every device is reset, started, and serves a request on each queue.</summary>
    public void Run(int actions)
    {
        Thread[] processors = [.. Enumerable.Range(0, 2)
            .Select(i => new Thread(() => Guarded(() => Harm(new Random(_seed + i), actions / 2))))];
        Thread host = new(() => Guarded(() => Host(new Random(_seed + 100))));
        host.Start();
        Array.ForEach(processors, p => p.Start());
        foreach (Thread processor in processors)
        {
            Join(processor);
        }

        _stopping = true;
        Join(host);
        Assert.True(_failure is null, $"seed {_seed}: {_failure}");
        _ram.Cut(null);
        foreach ((DeviceBench bench, DeviceGuest guest) in _devices)
        {
            Recover(guest);
            guest.Port.Status = 0;
            Calm(bench);
        }

        foreach ((DeviceBench bench, DeviceGuest guest) in _devices)
        {
            Guarded(() => bench.Heal(guest));
            Assert.True(_failure is null,
                $"seed {_seed}: {bench.Device.GetType().Name} behind {guest.Port.GetType().Name} does not heal: {_failure}");
            guest.Port.Status = 0; // the next one has the RAM for itself
        }
    }

    public void Dispose()
    {
        foreach ((DeviceBench bench, DeviceGuest guest) in _devices)
        {
            guest.Dispose();
            bench.Dispose();
        }

        _ram.Dispose();
    }

    /// <summary>A thread that makes no step for a minute hangs; with it the device that its last access went to.</summary>
    private void Join(Thread thread)
    {
        for (long before = -1; !thread.Join(s_patience); before = Volatile.Read(ref _progress))
        {
            Assert.True(Volatile.Read(ref _progress) != before, $"seed {_seed}: no access came back for {s_patience}");
        }
    }

    private void Guarded(Action work)
    {
        try
        {
            work();
        }
#pragma warning disable CA1031 // Whatever a device throws is what the run looks for.
        catch (Exception error)
#pragma warning restore CA1031
        {
            _failure ??= error;
        }
    }

    private void Harm(Random random, int actions)
    {
        byte[] data = new byte[8];
        for (int i = 0; i < actions && _failure is null; i++)
        {
            (DeviceBench bench, DeviceGuest guest) = _devices[random.Next(_devices.Count)];
            lock (guest)
            {
                Act(bench, guest, random, data);
            }

            Interlocked.Increment(ref _progress);
        }
    }

    private void Act(DeviceBench bench, DeviceGuest guest, Random random, byte[] data)
    {
        int queue = random.Next(guest.Queues);
        switch (random.Next(14))
        {
            case 0:
                Start(guest, random);
                break;
            case 1:
                guest.Port.Status = random.Next(3) == 0 ? (byte)random.Next(256) : (byte)15;
                break;
            case 2 or 3:
                guest.Post(queue, bench.Good(guest, queue));
                break;
            case 4 or 5:
                Scribble(guest, queue, random);
                break;
            case 6:
                guest.Offer(queue, random.Next(random.Next(16) == 0 ? 0x10000 : 16));
                guest.Kick(queue);
                break;
            case 7:
                guest.SetAvailIndex(queue, (ushort)random.Next(0x10000));
                guest.Kick(queue);
                break;
            case 8 or 9:
                Register(guest, random, data);
                break;
            case 10:
                random.NextBytes(data);
                guest.Port.WriteConfig(random.Next(64), data.AsSpan(0, 1 << random.Next(4)));
                break;
            case 11:
                guest.Port.ReadConfig(random.Next(64), data);
                break;
            case 12:
                Recover(guest);
                break;
            default:
                for (int i = 0; i < 20; i++)
                {
                    guest.Kick(random.Next(guest.Queues));
                }

                break;
        }
    }

    private static void Start(DeviceGuest guest, Random random)
    {
        guest.PlanAnew();
        guest.Features = random.Next(4) == 0 ? guest.Port.Offered & ((ulong)random.NextInt64() | 1UL << 32) : guest.Port.Offered;
        foreach (RingPlan plan in guest.Plans)
        {
            plan.Enabled = random.Next(8) != 0;
            plan.Used = random.Next(16) == 0 ? plan.Avail : plan.Used;
            plan.Size = random.Next(16) == 0 ? (ushort)(1 << random.Next(5)) : plan.Size;
        }

        Recover(guest);
        guest.Negotiate();
        guest.PlaceQueues();
        guest.Port.Status = 15;
    }

    /// <summary>Mostly plausible descriptors, so that chains get past the first check.</summary>
    private static void Scribble(DeviceGuest guest, int queue, Random random)
    {
        for (int i = 0; i < 8; i++)
        {
            ulong at = random.Next(12) == 0 ? (ulong)random.NextInt64() : DeviceGuest.Data + (ulong)random.Next(0x70000);
            uint length = random.Next(12) == 0 ? (uint)random.Next() : (uint)random.Next(1, 5000);
            int flags = random.Next(10) == 0 ? random.Next(8) : random.Next(4);
            guest.Put(queue, random.Next(16), at, length, flags, random.Next(random.Next(8) == 0 ? 70 : 16));
        }
    }

    /// <summary>Any register at any width; those of a function's configuration space move its BAR and take away its bus.</summary>
    private static void Register(DeviceGuest guest, Random random, byte[] data)
    {
        Span<byte> bytes = data.AsSpan(0, 1 << random.Next(4));
        random.NextBytes(bytes);
        (Vmm.Devices.Bus.AddressBus bus, ulong at) = guest.Port switch
        {
            PciPort pci => (pci.Bus, random.Next(3) switch
            {
                0 => PciPort.Slot + (ulong)random.Next(0x100),
                1 => PciPort.Bar + (ulong)random.Next(0x40),
                _ => PciPort.Bar + (ulong)random.Next(0x8000),
            }),
            MmioPort mmio => (mmio.Bus, MmioPort.Base + (ulong)random.Next(0x200)),
            _ => throw new InvalidOperationException("a transport that chaos does not know"),
        };
        if (random.Next(2) == 0)
        {
            bus.Write(at, bytes);
        }
        else
        {
            bus.Read(at, bytes);
        }
    }

    private static void Recover(DeviceGuest guest) => (guest.Port as PciPort)?.EnableBus();

    /// <summary>
    /// What the host does meanwhile: RAM comes and goes, frames and characters come in, wishes change, disks are slow or fail.
    /// </summary>
    private void Host(Random random)
    {
        while (!_stopping && _failure is null)
        {
            if (random.Next(3) == 0)
            {
                _ram.Cut(random.Next(4) == 0 ? (ulong)random.Next(GuestRam.Bytes) : null);
            }

            Stir(_devices[random.Next(_devices.Count)].Bench, random);
            Interlocked.Increment(ref _progress);
            if (random.Next(8) == 0)
            {
                Thread.Sleep(1);
            }
        }
    }

    private void Stir(DeviceBench bench, Random random)
    {
        switch (bench)
        {
            case NetBench net:
                net.Net.TrySend(random.Next(2), new byte[random.Next(60, 3000)]);
                net.Net.RefuseWrites = random.Next(8) == 0;
                net.Net.Receive(random.Next(2));
                break;
            case BlkBench blk:
                blk.Disk.DelayRounds = random.Next(4);
                blk.Disk.Answer = random.Next(4) == 0 ? Vmm.Storage.DiskStatus.IoError : Vmm.Storage.DiskStatus.Ok;
                break;
            case BalloonBench balloon:
                balloon.Balloon.SetTarget((ulong)random.Next(1 << 20));
                balloon.Balloon.RequestStatistics();
                break;
            case MemBench mem:
                mem.Mem.SetRequested(new Vmm.Memory.ByteSize((ulong)random.Next(MemBench.Blocks) * MemBench.Block));
                break;
            case ConsoleBench console:
                console.Console.Resize((ushort)random.Next(200), 25);
                if (_typed++ < MostTyped)
                {
                    console.Console.Send("x"u8);
                }

                break;
            default:
                break;
        }
    }

    private static void Calm(DeviceBench bench)
    {
        switch (bench)
        {
            case NetBench net:
                net.Net.RefuseWrites = false;
                net.Net.Clear();
                break;
            case BlkBench blk:
                blk.Disk.DelayRounds = 0;
                blk.Disk.Answer = Vmm.Storage.DiskStatus.Ok;
                break;
            default:
                break;
        }
    }
}
