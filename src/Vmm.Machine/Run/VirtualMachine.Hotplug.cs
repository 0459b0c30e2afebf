using Vmm.Devices.Bus;
using Vmm.Devices.Pci;
using Vmm.Devices.Virtio;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Net;
using Vmm.Interop;
using Vmm.Machine.Hotplug;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Machine.Run;

/// <content>Disks and network devices that come and go while the guest runs.</content>
public sealed partial class VirtualMachine
{
    private readonly Lock _devicesLock = new();
    private readonly List<Thread> _removals = [];
    private PciHotplugPorts[] _hotplug = []; // by bus
    private VirtioSlots? _slots;
    private Pluggable[] _devices = []; // replaced whole: read without the lock
    private int _disksEver, _netsEver;
    private bool _over;

    /// <summary>A device is gone, its file or tap closed: the guest ejected it, or it was taken. Raised on a thread of its own, also for a removal that was refused before.</summary>
    public event EventHandler<DeviceRemovedEventArgs>? DeviceRemoved;

    /// <summary>Disks and network devices now, in the order they came. Any thread.</summary>
    public IReadOnlyList<PluggedDevice> Devices => Array.ConvertAll(Volatile.Read(ref _devices), device => device.Info);

    /// <summary>What its parts ask of the kernel, with those that can be plugged in later.</summary>
    public MachineNeeds Needs => _slots!.Needs;

    /// <summary>The spec with the disks and network devices that are plugged now. Any thread.</summary>
    public VmSpec Spec
    {
        get
        {
            Pluggable[] devices = Volatile.Read(ref _devices);
            return _spec with
            {
                Disks = [.. from device in devices where device.DiskSpec is not null select device.DiskSpec],
                Nets = [.. from device in devices where device.NetSpec is not null select device.NetSpec],
            };
        }
    }

    /// <summary>Plugs a disk in and tells the guest; whether it has a driver is its own affair. Any thread.</summary>
    /// <param name="spec">A validated disk; its transport is PCI.</param>
    /// <param name="backend">The opened disk, the machine's from here on, also when this throws.</param>
    /// <exception cref="HotplugException">It cannot be plugged.</exception>
    public PluggedDevice AddDisk(DiskSpec spec, IDiskBackend backend)
    {
        CheckTransport(spec.Transport, backend);
        CheckVnode(spec.Vnode, backend);
        CheckRings(spec, backend);
        string name = $"disk{Interlocked.Increment(ref _disksEver) - 1}";
        VirtioBlk disk = MakeDisk(name, spec, backend);
        return Plug(name, disk, at => new Pluggable(name, at, spec, disk));
    }

    /// <summary>Plugs a network device in and tells the guest. Any thread.</summary>
    /// <param name="spec">A validated network device; its transport is PCI.</param>
    /// <param name="backend">The opened tap, the machine's from here on, also when this throws.</param>
    /// <exception cref="HotplugException">It cannot be plugged.</exception>
    public PluggedDevice AddNet(NetSpec spec, INetBackend backend)
    {
        CheckTransport(spec.Transport, backend);
        CheckVnode(spec.Vnode, backend);
        int index = Interlocked.Increment(ref _netsEver) - 1;
        VirtioNet net = MakeNet(index, spec, backend);
        return Plug(net.Name, net, at => new Pluggable(net.Name, at, spec, net));
    }

    /// <summary>
    /// Asks the guest to let go of a disk or network device and waits until it did. A guest that does not is asked once; what it does later still counts
    /// (<see cref="DeviceRemoved"/>). Any thread.
    /// </summary>
    /// <param name="name">Name of the device.</param>
    /// <param name="patience">How long the guest has.</param>
    /// <param name="force">After that it is taken: requests in flight end, then its file or tap is closed.</param>
    /// <param name="cancellation">Ends the wait, not the wish.</param>
    /// <exception cref="HotplugException">It cannot be removed.</exception>
    public async Task<RemovalOutcome> RemoveAsync(string name, TimeSpan patience, bool force, CancellationToken cancellation)
    {
        Pluggable device = StartRemoval(name);
        try
        {
            try
            {
                return await device.Gone.WaitAsync(patience, cancellation).ConfigureAwait(false) ? RemovalOutcome.Removed : throw Ended();
            }
            catch (TimeoutException) when (!force)
            {
                return RemovalOutcome.Refused;
            }
            catch (TimeoutException)
            {
                return await TakeAsync(device).ConfigureAwait(false);
            }
        }
        finally
        {
            lock (_devicesLock)
            {
                device.Awaited = false;
            }
        }
    }

    private async Task<RemovalOutcome> TakeAsync(Pluggable device)
    {
        PciAddress at = device.Address!.Value;
        bool taken = _hotplug[at.Bus].Take(at.Slot); // or the guest was quicker
        if (taken)
        {
            Retire(at, RemovalOutcome.Forced);
            lock (_devicesLock)
            {
                if (!_over) // else its interrupt controller may be gone
                {
                    _hotplug[at.Bus].Changed(at.Slot);
                }
            }
        }

        return !await device.Gone.ConfigureAwait(false) ? throw Ended() : taken ? RemovalOutcome.Forced : RemovalOutcome.Removed;
    }

    private Pluggable StartRemoval(string name)
    {
        lock (_devicesLock)
        {
            if (_over)
            {
                throw Ended();
            }

            Pluggable device = Array.Find(_devices, d => string.Equals(d.Name, name, StringComparison.Ordinal))
                ?? throw new HotplugException(HotplugProblem.NoSuchDevice, $"{_spec.Name} has no disk or network device {name}");
            if (device.Address is not { } at)
            {
                throw new HotplugException(HotplugProblem.NotHotpluggable, $"{name} is a virtio-mmio device: only PCI devices can be removed while the guest runs");
            }

            if (device.Awaited)
            {
                throw new HotplugException(HotplugProblem.Busy, $"{name} is being removed already");
            }

            device.Awaited = true;
            device.Removing = true;
            // The guest may have ejected it just now: then it is on its way out all the same.
            _ = _hotplug[at.Bus].AskRemoval(at.Slot);
            return device;
        }
    }

    private static void CheckTransport(Spec.VirtioTransport? transport, IDisposable backend)
    {
        if (transport == Vmm.Spec.VirtioTransport.Mmio)
        {
            backend.Dispose();
            throw new HotplugException(HotplugProblem.NotHotpluggable, "a virtio-mmio device cannot be added while the guest runs: leave its transport out, or make it pci");
        }
    }

    private void CheckVnode(int? vnode, IDisposable backend)
    {
        int count = _spec.EffectiveVnodes.Count;
        if (vnode < 0 || vnode >= count)
        {
            backend.Dispose();
            throw new HotplugException(HotplugProblem.NotHotpluggable, $"there is no vnode {vnode}: {_spec.Name} has {count} (0-{count - 1})");
        }
    }

    /// <summary>A confined worker has the rings that it was started with.</summary>
    private void CheckRings(DiskSpec disk, IDisposable backend)
    {
        if (IoUringPool.FileLimit is { } limit && DiskRingsNeeded + disk.Queues > limit)
        {
            backend.Dispose();
            throw new HotplugException(HotplugProblem.NoSlot, $"{_spec.Name} has no I/O rings left for {disk.Queues} more disk queues: it has had room for {limit} since it was started. Detach a disk, or add this one to the stopped VM");
        }
    }

    private PluggedDevice Plug(string name, VirtioDevice device, Func<PciAddress, Pluggable> make)
    {
        VirtioPciFunction function = _slots!.Function(name, device);
        Pluggable plugged;
        try
        {
            lock (_devicesLock)
            {
                if (_over)
                {
                    throw Ended();
                }

                PciAddress at = _slots.Plug(function);
                plugged = make(at);
                Volatile.Write(ref _devices, [.. _devices, plugged]);
                // Together: whoever finds the device among the others may take its slot.
                _hotplug[at.Bus].Added(at.Slot);
            }
        }
        catch (Exception cause)
        {
            function.Dispose();
            throw cause is InvalidOperationException ? new HotplugException(HotplugProblem.NoSlot, cause.Message) : cause;
        }

        return plugged.Info;
    }

    private HotplugException Ended() => new(HotplugProblem.Ended, $"{_spec.Name} is over");

    /// <summary>A device that was there before the guest started.</summary>
    private void Record(Pluggable device)
    {
        Pluggable[] devices = new Pluggable[_devices.Length + 1];
        _devices.CopyTo(devices, 0);
        devices[^1] = device;
        _devices = devices;
    }

    private void BuildHotplug(VirtioSlots slots, KvmInterrupts interrupts)
    {
        _slots = slots;
        WiredOr line = new(interrupts.CreateLevelLine(HotplugGsi));
        _hotplug = new PciHotplugPorts[slots.Bridge.Buses];
        for (int i = 0; i < _hotplug.Length; i++)
        {
            int bus = i;
            _hotplug[bus] = new PciHotplugPorts(line.AddInput(), slot => Retire(new PciAddress(bus, slot), RemovalOutcome.Removed));
            _ports.Map(PciHotplugPorts.Port(bus), PciHotplugPorts.Length, _hotplug[bus], "PCI hotplug");
        }

        foreach (Pluggable device in _devices)
        {
            if (device.Address is { } at)
            {
                _hotplug[at.Bus].Allow(at.Slot);
            }
        }
    }

    /// <summary>The slots of each bus that can be ejected, or get something: all but those of bridges and devices that stay.</summary>
    private uint[] HotplugSlots()
    {
        uint[] slots = new uint[_slots!.Bridge.Buses];
        for (int bus = 0; bus < slots.Length; bus++)
        {
            slots[bus] = ~_slots.Bridge.Taken(bus);
        }

        foreach (Pluggable device in _devices)
        {
            if (device.Address is { } at)
            {
                slots[at.Bus] |= 1u << at.Slot;
            }
        }

        return slots;
    }

    /// <summary>
    /// Off the bus, before the guest's next instruction when the guest ejects on a vCPU thread. Closing what is behind it is for a thread that may do that:
    /// a vCPU's has to go on, and may be confined.
    /// </summary>
    private void Retire(PciAddress at, RemovalOutcome outcome)
    {
        lock (_devicesLock)
        {
            if (_over || Array.Find(_devices, d => d.Address == at && !d.Retired) is not { } device)
            {
                return;
            }

            device.Retired = true;
            device.Removing = true;
            PciFunction? function = _slots!.Bridge.Unplug(at);
            Thread finish = new(() => Finish(device, function, outcome), maxStackSize: 256 * 1024) { Name = device.Name + "-eject", IsBackground = true };
            _removals.RemoveAll(thread => !thread.IsAlive);
            try
            {
                (_resources.Threads ?? (IIoThreads)PlainIoThreads.Instance).Start(finish);
                _removals.Add(finish); // once it runs: what is in the list is joined
            }
#pragma warning disable CA1031 // No thread can be had: the VM ends with the reason, instead of a vCPU that dies of it.
            catch (Exception cause)
#pragma warning restore CA1031
            {
                _end.Decide(new RunResult(RunOutcome.Failed, Message: $"{device.Name} could not be removed: {cause.Message}"));
            }
        }
    }

    private void Finish(Pluggable device, PciFunction? function, RemovalOutcome outcome)
    {
        try
        {
            function?.Dispose();
            lock (_devicesLock)
            {
                Volatile.Write(ref _devices, Array.FindAll(_devices, d => !ReferenceEquals(d, device)));
            }

            device.End(removed: true);
            DeviceRemoved?.Invoke(this, new DeviceRemovedEventArgs(device.Info, outcome));
        }
#pragma warning disable CA1031 // A fault of ours in the end of a device must end this VM with its reason, not the process without one.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            _end.Decide(new RunResult(RunOutcome.Failed, Message: $"{device.Name} could not be removed: {cause.Message}"));
        }
    }

    /// <summary>The vCPUs stand still for good: nothing is added, and nobody waits for an eject any more.</summary>
    private void EndHotplug()
    {
        Thread[] removals;
        lock (_devicesLock)
        {
            _over = true;
            removals = [.. _removals];
        }

        foreach (Thread removal in removals)
        {
            removal.Join();
        }

        foreach (Pluggable device in Volatile.Read(ref _devices))
        {
            device.End(removed: false);
        }
    }
}
