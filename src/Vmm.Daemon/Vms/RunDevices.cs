using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>What one run of a VM has plugged beyond, and besides, its stored spec. Thread-safe; calls nobody under its lock.</summary>
internal sealed class RunDevices
{
    private readonly Lock _lock = new();

    /// <summary>Devices that leave the stored spec when the guest lets go of them, by name in the running VM.</summary>
    private readonly Dictionary<string, DeviceInfo> _leaving = new(StringComparer.Ordinal);

    /// <summary>Disks that the running VM has and the stored spec has not: name and file.</summary>
    private readonly Dictionary<string, string> _unstored = new(StringComparer.Ordinal);

    /// <summary>What was plugged in during this run, as a spec with nothing else in it, by name.</summary>
    private readonly Dictionary<string, VmSpec> _plugged = new(StringComparer.Ordinal);

    /// <summary>Files of the disks of this run.</summary>
    private readonly RunningDisks _disks = new();

    /// <summary>Taps that were plugged into the running VM.</summary>
    private readonly HashSet<string> _taps = new(StringComparer.Ordinal);

    /// <summary>A run begins with what its spec has.</summary>
    internal void Begin(VmSpec? spec)
    {
        lock (_lock)
        {
            Forget();
            _disks.Reset(spec);
        }
    }

    /// <summary>The run is over.</summary>
    internal void Clear()
    {
        lock (_lock)
        {
            Forget();
        }
    }

    /// <summary>A device was plugged in.</summary>
    internal void Add(DeviceInfo device, VmSpec part)
    {
        lock (_lock)
        {
            _plugged[device.Name] = part;
            if (device.Kind is "net")
            {
                _taps.Add(device.Source);
            }
            else
            {
                _disks.Add(device.Name, device.Source);
            }
        }
    }

    /// <summary>
    /// What was plugged in under this name and from this source, as a spec with nothing else in it; null: nobody of this daemon did.
    /// </summary>
    internal VmSpec? PartOf(DeviceInfo device)
    {
        lock (_lock)
        {
            return _plugged.TryGetValue(device.Name, out VmSpec? part)
                && (part.Disks.Any(d => string.Equals(d.Path, device.Source, StringComparison.Ordinal))
                    || part.Nets.Any(n => string.Equals(n.Source, device.Source, StringComparison.Ordinal)))
                ? part
                : null;
        }
    }

    /// <summary>A disk that was plugged in is not in the stored spec.</summary>
    internal void AddUnstored(DeviceInfo disk)
    {
        lock (_lock)
        {
            _unstored[disk.Name] = disk.Source;
        }
    }

    /// <summary>A removal begins: whether the device leaves the stored spec with it.</summary>
    internal void BeginRemoval(DeviceInfo device, bool leavesSpec)
    {
        lock (_lock)
        {
            if (leavesSpec)
            {
                _leaving[device.Name] = device;
            }
            else
            {
                _leaving.Remove(device.Name);
            }
        }
    }

    /// <summary>A device is gone: the first caller gets the device when it is to leave the stored spec.</summary>
    internal DeviceInfo? EndRemoval(string device)
    {
        lock (_lock)
        {
            _unstored.Remove(device);
            return _leaving.Remove(device, out DeviceInfo? leaving) ? leaving : null;
        }
    }

    /// <summary>A disk is in another file, which the stored spec names.</summary>
    internal void MoveDisk(string disk, string file)
    {
        lock (_lock)
        {
            _plugged.Remove(disk);
            _disks.Add(disk, file);
        }
    }

    /// <summary>The worker says that a disk is gone; no other of this run gets its name.</summary>
    internal void ForgetDisk(string disk)
    {
        lock (_lock)
        {
            _disks.Remove(disk);
        }
    }

    /// <summary>
    /// An adopted worker tells what it has plugged. Only files that the spec names, or that the worker may really have open, count.
    /// </summary>
    internal void Learn(DeviceList plugged, VmSpec? spec, IWorker worker)
    {
        bool IsStored(DeviceInfo disk) => spec is not null && SpecDevices.IndexOf(spec, disk) >= 0;
        bool IsOpen(DeviceInfo disk) => OpenFiles.MayHold(worker.ProcessId, disk.Source);
        List<DeviceInfo> unstored = [.. plugged.Devices.Where(device => device.Kind is "disk" && !IsStored(device) && IsOpen(device))];
        HashSet<string> open = [.. unstored.Select(disk => disk.Name)];
        lock (_lock)
        {
            _disks.Learn(plugged, disk => IsStored(disk) || open.Contains(disk.Name));
            _unstored.Clear();
            foreach (DeviceInfo disk in unstored)
            {
                _unstored[disk.Name] = disk.Source;
            }
        }
    }

    /// <summary>Names and files of all disks of this run.</summary>
    internal IReadOnlyList<KeyValuePair<string, string>> DiskFiles()
    {
        lock (_lock)
        {
            return [.. _disks.All];
        }
    }

    /// <summary>The file of a disk; null: this run has none of that name.</summary>
    internal string? FileOf(string disk)
    {
        lock (_lock)
        {
            return _disks.FileOf(disk);
        }
    }

    /// <summary>Taps that were plugged in during this run.</summary>
    internal IReadOnlyList<string> Taps
    {
        get
        {
            lock (_lock)
            {
                return [.. _taps];
            }
        }
    }

    /// <summary>Network devices that were plugged in during this run.</summary>
    internal IReadOnlyList<NetSpec> Nets
    {
        get
        {
            lock (_lock)
            {
                return [.. _plugged.Values.SelectMany(part => part.Nets)];
            }
        }
    }

    /// <summary>Whether a disk that is not in the stored spec is that file.</summary>
    internal bool HasUnstored(string path)
    {
        lock (_lock)
        {
            return _unstored.ContainsValue(path);
        }
    }

    // Under the lock.
    private void Forget()
    {
        _unstored.Clear();
        _plugged.Clear();
        _taps.Clear();
        _leaving.Clear();
    }
}
