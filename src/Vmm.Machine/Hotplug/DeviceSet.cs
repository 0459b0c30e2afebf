using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.Machine.Build;
using Vmm.Machine.Description;
using Vmm.Machine.Kinds;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Machine.Hotplug;

/// <summary>The virtio devices of a machine: built from its description, found, plugged and unplugged while the guest runs.</summary>
internal sealed class DeviceSet
{
    private const uint HotplugGsi = PlatformDevices.HotplugGsi;
    private const int MostOtherRings = 4; // random numbers, balloon, sockets, console; memory has one a vnode

    private readonly Board _board;
    private readonly DeviceTable _table = new();
    private readonly MachineDescription _start;
    private int _nextDisk, _nextNet;

    /// <param name="board">What they are connected to.</param>
    /// <param name="description">Which there are.</param>
    /// <param name="slots">Where they are plugged in.</param>
    internal DeviceSet(Board board, MachineDescription description, VirtioSlots slots)
    {
        (_board, _start, Slots) = (board, description, slots);
        (_nextDisk, _nextNet) = (description.NextDisk, description.NextNet);
        Ports = new PciHotplugPorts[slots.Bridge.Buses];
        Removal = new DeviceRemoval(board, _table, this);
    }

    /// <summary>Where they are plugged in.</summary>
    internal VirtioSlots Slots { get; }

    /// <summary>Taking them out.</summary>
    internal DeviceRemoval Removal { get; }

    /// <summary>The eject registers, by bus.</summary>
    internal PciHotplugPorts[] Ports { get; }

    /// <summary>All devices now, in the order in which they came. Any thread.</summary>
    internal IReadOnlyList<AttachedDevice> All => _table.All;

    /// <summary>Disks and network devices now, in the order they came. Any thread.</summary>
    internal IReadOnlyList<PluggedDevice> Pluggable => [.. from device in _table.All where device.IsPluggable select device.Info];

    /// <summary>The machine with the devices that are plugged now. Any thread.</summary>
    internal MachineDescription Description
    {
        get
        {
            lock (_table.Gate)
            {
                AttachedDevice[] devices = Array.FindAll(_table.All, device => !device.Retired);
                return _start with
                {
                    Spec = SpecWith(devices),
                    Devices = Array.ConvertAll(devices, device => device.Description),
                    NextDisk = _nextDisk,
                    NextNet = _nextNet,
                };
            }
        }
    }

    /// <summary>The spec with the disks and network devices that are plugged now. Any thread.</summary>
    internal VmSpec Spec => SpecWith(_table.All);

    /// <summary>
    /// Rings (io_uring) that only wait which the devices use at most: one for each pair of queues of a network device, and for each other
    /// device that is no disk.
    /// </summary>
    internal int WaitingRingsNeeded => MostOtherRings + _start.Spec.EffectiveVnodes.Count + Spec.Devices.Count(d => !d.ReachesFiles)
        + Spec.Nets.Sum(n => n.Queues);

    /// <summary>
    /// The same for rings that reach files: one for each thread that serves queues of a disk, or a device that says so. Any thread.
    /// </summary>
    internal int FileRingsNeeded => Spec.Disks.Sum(d => d.Queues) + Spec.Devices.Count(d => d.ReachesFiles);

    /// <summary>The only device of a type; null when there is none.</summary>
    internal T? Find<T>() where T : VirtioDevice => Array.Find(_table.All, each => each.Device is T)?.Device as T;

    /// <summary>Builds the devices of the description, before the guest starts.</summary>
    /// <param name="placeBars">Gives BARs addresses, as firmware does; false leaves them as a reset does.</param>
    internal void Build(bool placeBars)
    {
        Dictionary<string, int> counts = new(StringComparer.Ordinal);
        foreach (DeviceDescription description in _start.Devices)
        {
            DeviceKind kind = DeviceKinds.Find(description.Kind)
                ?? throw new InvalidDataException($"{description.Id}: there is no kind of device '{description.Kind}'");
            int index = counts.GetValueOrDefault(kind.Name);
            counts[kind.Name] = index + 1;
            _board.Homes.PlaceNear(description.Id, description.Vnode);
            VirtioDevice device = kind.Build(new DeviceSetup(description, index, _start, _board));
            Slots.Attach(description, device, placeBars);
            _table.Add(new AttachedDevice(
                description,
                device,
                device is VirtioBlk ? _start.Spec.Disks[index] : null,
                device is VirtioNet ? _start.Spec.Nets[index] : null));
        }

        BuildHotplug();
    }

    /// <summary>The slots of each bus that can be ejected, or get something: all but those of bridges and devices that stay.</summary>
    internal uint[] HotplugSlots()
    {
        uint[] slots = new uint[Slots.Bridge.Buses];
        for (int bus = 0; bus < slots.Length; bus++)
        {
            slots[bus] = ~Slots.Bridge.Taken(bus);
        }

        foreach (AttachedDevice device in _table.All)
        {
            if (device is { IsPluggable: true, Address: { } at })
            {
                slots[at.Bus] |= 1u << at.Slot;
            }
        }

        return slots;
    }

    /// <summary>Plugs a disk in and tells the guest. Any thread.</summary>
    /// <exception cref="HotplugException">It cannot be plugged; the back end is closed.</exception>
    internal PluggedDevice AddDisk(DiskSpec spec, IDiskBackend backend)
    {
        CheckTransport(spec.Transport, backend);
        CheckVnode(spec.Vnode, backend);
        CheckRings(spec.Queues, 0, backend);
        string id = BlkKind.IdOf(Interlocked.Increment(ref _nextDisk) - 1);
        _board.Homes.PlaceNear(id, spec.Vnode);
        VirtioBlk disk = BlkKind.Make(_board, id, spec, backend);
        return Plug(
            new DeviceDescription { Id = id, Kind = BlkKind.Name, Vnode = spec.Vnode },
            disk,
            at => new AttachedDevice(at, disk, disk: spec));
    }

    /// <summary>Plugs a network device in and tells the guest. Any thread.</summary>
    /// <exception cref="HotplugException">It cannot be plugged; the back end is closed.</exception>
    internal PluggedDevice AddNet(NetSpec spec, INetBackend backend)
    {
        CheckTransport(spec.Transport, backend);
        CheckVnode(spec.Vnode, backend);
        CheckRings(0, spec.Queues, backend);
        string id = NetKind.IdOf(Interlocked.Increment(ref _nextNet) - 1);
        _board.Homes.PlaceNear(id, spec.Vnode);
        VirtioNet net = NetKind.Make(_board, id, spec, backend);
        return Plug(
            new DeviceDescription { Id = id, Kind = NetKind.Name, Vnode = spec.Vnode },
            net,
            at => new AttachedDevice(at, net, net: spec));
    }

    /// <summary>Limits a disk or network device from now on; null is no limit. Any thread.</summary>
    /// <exception cref="ArgumentException">There is no such device, or the limit is out of range.</exception>
    internal void SetLimit(string id, RateLimit? limit)
    {
        AttachedDevice device = _table.FindPluggable(id)
            ?? throw new ArgumentException($"{_board.Spec.Name} has no device {id} with limits", nameof(id));
        (device.Device as VirtioBlk)?.SetLimit(limit);
        (device.Device as VirtioNet)?.SetLimit(limit);
    }

    /// <summary>Counters of disks and network devices now. Any thread.</summary>
    internal (List<DiskCounters> Disks, List<NetDeviceCounters> Nets) Counters()
    {
        List<DiskCounters> disks = [];
        List<NetDeviceCounters> nets = [];
        foreach (AttachedDevice device in _table.All)
        {
            if (device.Device is VirtioBlk disk)
            {
                disks.Add(new DiskCounters(device.Id, disk.Counters));
            }
            else if (device.Device is VirtioNet net)
            {
                nets.Add(new NetDeviceCounters(device.Id, net.Counters, net.InKernel ? device.NetSpec?.Tap : null));
            }
        }

        return (disks, nets);
    }

    /// <summary>The vCPUs stand still for good: nothing is added, and nobody waits for an eject any more.</summary>
    internal void End()
    {
        lock (_table.Gate)
        {
            _table.IsOver = true;
        }

        _board.Helpers.Join();
        foreach (AttachedDevice device in _table.All)
        {
            device.End(removed: false);
        }
    }

    /// <summary>
    /// After <see cref="End"/>: what the guest wrote and did not flush is on stable storage, or the fault was reported, while there is
    /// still somebody to hear of it.
    /// </summary>
    internal void FlushDisks()
    {
        foreach (AttachedDevice device in _table.All)
        {
            (device.Device as VirtioBlk)?.Reset();
        }
    }

    internal HotplugException Ended() => new(HotplugProblem.Ended, $"{_board.Spec.Name} is over");

    private VmSpec SpecWith(AttachedDevice[] devices) => _start.Spec with
    {
        Disks = [.. from device in devices where device.DiskSpec is not null select device.DiskSpec],
        Nets = [.. from device in devices where device.NetSpec is not null select device.NetSpec],
    };

    private void BuildHotplug()
    {
        WiredOr line = new(_board.Interrupts.CreateLevelLine(HotplugGsi));
        for (int i = 0; i < Ports.Length; i++)
        {
            int bus = i;
            Ports[bus] = new PciHotplugPorts(line.AddInput(), slot => Removal.Retire(new PciAddress(bus, slot), RemovalOutcome.Removed));
            _board.Ports.Map(PciHotplugPorts.Port(bus), PciHotplugPorts.Length, Ports[bus], "PCI hotplug");
        }

        foreach (AttachedDevice device in _table.All)
        {
            if (device is { IsPluggable: true, Address: { } at })
            {
                Ports[at.Bus].Allow(at.Slot);
            }
        }
    }

    private PluggedDevice Plug(DeviceDescription description, VirtioDevice device, Func<DeviceDescription, AttachedDevice> make)
    {
        VirtioPciFunction function = Slots.Function(description.Id, device);
        try
        {
            lock (_table.Gate)
            {
                if (_table.IsOver)
                {
                    throw Ended();
                }

                PciAddress at = Slots.Plug(function);
                AttachedDevice plugged = make(description with { Pci = at });
                _table.Add(plugged);
                // Together: whoever finds the device among the others may take its slot.
                Ports[at.Bus].Added(at.Slot);
                return plugged.Info;
            }
        }
        catch (Exception cause)
        {
            function.Dispose();
            throw cause is InvalidOperationException ? new HotplugException(HotplugProblem.NoSlot, cause.Message) : cause;
        }
    }

    private static void CheckTransport(Spec.VirtioTransport? transport, IDisposable backend)
    {
        if (transport == Vmm.Spec.VirtioTransport.Mmio)
        {
            backend.Dispose();
            throw new HotplugException(
                HotplugProblem.NotHotpluggable,
                "a virtio-mmio device cannot be added while the guest runs: leave its transport out, or make it pci");
        }
    }

    private void CheckVnode(int? vnode, IDisposable backend)
    {
        int count = _board.Spec.EffectiveVnodes.Count;
        if (vnode < 0 || vnode >= count)
        {
            backend.Dispose();
            throw new HotplugException(
                HotplugProblem.NotHotpluggable, $"there is no vnode {vnode}: {_board.Spec.Name} has {count} (0-{count - 1})");
        }
    }

    /// <summary>A confined worker has the rings that it was started with.</summary>
    private void CheckRings(int diskQueues, int netQueues, IDisposable backend)
    {
        if (IoUringPool.Limit is not { } limit)
        {
            return;
        }

        int files = FileRingsNeeded + diskQueues, waiting = WaitingRingsNeeded + netQueues;
        if (files > limit.Files || files + waiting > limit.Files + limit.Waiting)
        {
            backend.Dispose();
            (int queues, string kind) = diskQueues > 0 ? (diskQueues, "disk") : (netQueues, "network");
            throw new HotplugException(
                HotplugProblem.NoSlot,
                $"{_board.Spec.Name} has no I/O rings left for {queues} more {kind} queues: "
                + $"it has had room for {(diskQueues > 0 ? limit.Files : limit.Files + limit.Waiting)} since it was started. "
                + "Detach a device, or add this one to the stopped VM");
        }
    }
}
