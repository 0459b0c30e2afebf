using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Fs;
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
    private const int MostOtherRings = 5; // random numbers, balloon, sockets, console, agent; memory has one a vnode

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
        Removal = new DeviceRemoval(board, _table, this);
        Hotplug = description.Pci.HasPorts
            ? new PortHotplug(slots.Bridge, at => Removal.Retire(at, RemovalOutcome.Removed))
            : new AcpiHotplug(board, slots.Bridge, at => Removal.Retire(at, RemovalOutcome.Removed));
    }

    /// <summary>Where they are plugged in.</summary>
    internal VirtioSlots Slots { get; }

    /// <summary>Taking them out.</summary>
    internal DeviceRemoval Removal { get; }

    /// <summary>How the guest is told of them.</summary>
    internal IPciHotplug Hotplug { get; }

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
        + Spec.Nets.Sum(n => n.Queues) + Spec.Shares.Count;

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

        foreach (AttachedDevice device in _table.All)
        {
            if (device is { IsPluggable: true, Address: { } at })
            {
                Hotplug.Allow(at);
            }
        }
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

    /// <summary>Begins to copy a disk to another one, to go on there. Any thread.</summary>
    /// <exception cref="HotplugException">There is no such disk, or it is on its way out; the back end is closed.</exception>
    /// <exception cref="BlockException">The target does not fit; it is closed.</exception>
    /// <exception cref="TimeoutException">The disk hangs; the back end is closed.</exception>
    internal DiskCopy CopyDisk(string id, DiskSpec spec, IDiskBackend target, CopyRequest wish)
    {
        bool isTaken = false;
        try
        {
            return BeginJob(id, (device, threads) =>
            {
                isTaken = true;
                return DiskCopy.Begin(device, spec, target, wish, threads);
            });
        }
        finally
        {
            if (!isTaken)
            {
                target.Dispose();
            }
        }
    }

    /// <summary>Begins to stream a disk, which goes on without the images between then. Any thread.</summary>
    /// <exception cref="HotplugException">There is no such disk, or it is on its way out.</exception>
    /// <exception cref="BlockException">It is no image, has nothing to stream, or does not stand on that base.</exception>
    internal DiskStream StreamDisk(string id, string? baseFile, ulong bytesPerSecond) =>
        BeginJob(id, (device, threads) => DiskStream.Begin(device, baseFile, bytesPerSecond, threads));

    /// <summary>Begins to commit a disk into an image of its chain, to go on there. Any thread.</summary>
    /// <exception cref="HotplugException">There is no such disk, or it is on its way out; the file is closed.</exception>
    /// <exception cref="BlockException">It cannot be committed there; the file is closed.</exception>
    /// <exception cref="TimeoutException">The disk hangs; the file is closed.</exception>
    internal DiskCommit CommitDisk(string id, RawFileBackend file, ulong bytesPerSecond)
    {
        try
        {
            return BeginJob(id, (device, threads) => DiskCommit.Begin(device, file, bytesPerSecond, threads));
        }
        catch (HotplugException)
        {
            file.Dispose();
            throw;
        }
    }

    // One job at a time has a disk.
    private T BeginJob<T>(string id, Func<AttachedDevice, IIoThreads, T> begin)
    {
        AttachedDevice device;
        lock (_table.Gate)
        {
            device = _table.FindPluggable(id) is { Device: VirtioBlk } disk ? disk : throw new HotplugException(
                HotplugProblem.NoSuchDevice, $"{_board.Spec.Name} has no disk {id}");
            if (_table.IsOver || device.Removing || device.IsCopied)
            {
                throw new HotplugException(HotplugProblem.Busy, $"{id} is on its way out, or has a job already");
            }

            device.IsCopied = true;
        }

        try
        {
            IIoThreads threads = _board.Resources.Threads ?? (IIoThreads)PlainIoThreads.Instance;
            return begin(device, threads.With(BlockFile.Needs));
        }
        catch
        {
            device.IsCopied = false;
            throw;
        }
    }

    /// <inheritdoc cref="DiskSnapshot.Take"/>
    internal void SnapshotDisks(IReadOnlyList<DiskOverlay> overlays, bool cut, Action<string>? note) =>
        DiskSnapshot.Take(_board.Spec.Name, _table, overlays, cut, note, _board.Resources.Threads);

    /// <inheritdoc cref="DiskLogs.Set"/>
    internal void Log(string id, FileDescriptorHandle? file) => DiskLogs.Set(_board.Spec.Name, _table, id, file);

    /// <summary>Limits a disk or network device from now on; null is no limit. Any thread.</summary>
    /// <exception cref="ArgumentException">There is no such device, or the limit is out of range.</exception>
    internal void SetLimit(string id, RateLimit? limit)
    {
        AttachedDevice device = _table.FindPluggable(id)
            ?? throw new ArgumentException($"{_board.Spec.Name} has no device {id} with limits", nameof(id));
        (device.Device as VirtioBlk)?.SetLimit(limit);
        (device.Device as VirtioNet)?.SetLimit(limit);
    }

    /// <summary>Looks again how large a disk is, or makes it larger; the guest hears of what it grew by. Any thread.</summary>
    /// <param name="id">The disk.</param>
    /// <param name="bytes">The size to grow to, for an image; null: only look.</param>
    /// <returns>The size that the guest sees, in bytes.</returns>
    /// <exception cref="HotplugException">There is no such disk.</exception>
    /// <exception cref="BlockException">It cannot be looked at, has shrunk, or does not grow.</exception>
    internal ulong RefreshDisk(string id, ulong? bytes = null)
    {
        try
        {
            return (_table.FindPluggable(id)?.Device as VirtioBlk)?.RefreshCapacity(bytes) ?? throw NoDisk();
        }
        catch (ObjectDisposedException)
        {
            throw NoDisk(); // it went meanwhile
        }

        HotplugException NoDisk() => new(HotplugProblem.NoSuchDevice, $"{_board.Spec.Name} has no disk {id}");
    }

    /// <summary>Counters of disks, network devices and shared folders now. Any thread.</summary>
    internal (List<DiskCounters> Disks, List<NetDeviceCounters> Nets, List<ShareCounters> Shares) Counters()
    {
        List<DiskCounters> disks = [];
        List<NetDeviceCounters> nets = [];
        List<ShareCounters> shares = [];
        foreach (AttachedDevice device in _table.All)
        {
            if (device.Device is VirtioBlk disk)
            {
                disks.Add(new DiskCounters(device.Id, disk.Counters));
            }
            else if (device.Device is VirtioNet net)
            {
                nets.Add(new NetDeviceCounters(device.Id, net.Counters, net.InKernel ? net.Interface : null));
            }
            else if (device.Device is VirtioFs share)
            {
                shares.Add(new ShareCounters(device.Id, share.Requests, share.Losses, share.IsConnected));
            }
        }

        return (disks, nets, shares);
    }

    /// <summary>Looks whether the disks can be saved.</summary>
    /// <exception cref="Vmm.State.StateException">One waits for the host.</exception>
    internal void ThrowIfWaiting()
    {
        foreach (AttachedDevice device in _table.All)
        {
            (device.Device as VirtioBlk)?.ThrowIfWaiting();
        }
    }

    /// <summary>Looks whether a device lives by what another process knows of its guest.</summary>
    /// <exception cref="Vmm.State.StateException">One does.</exception>
    internal void ThrowIfShared()
    {
        foreach (AttachedDevice device in _table.All)
        {
            (device.Device as VhostUserDevice)?.ThrowIfSaved();
        }
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
                Hotplug.Added(at);
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
