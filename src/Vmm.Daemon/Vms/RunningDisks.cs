using Vmm.Contracts.Control;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>The host files of the disks of one run, by the names they have in it. Not thread-safe.</summary>
internal sealed class RunningDisks
{
    private readonly Dictionary<string, string> _files = new(StringComparer.Ordinal);

    /// <summary>A run begins with the disks of its spec, which are named in their order.</summary>
    internal void Reset(VmSpec? spec)
    {
        _files.Clear();
        for (int i = 0; i < spec?.Disks.Count; i++)
        {
            _files[$"disk{i}"] = spec.Disks[i].Path;
        }
    }

    /// <summary>A disk was plugged in.</summary>
    internal void Add(string disk, string file) => _files[disk] = file;

    /// <summary>A disk is gone; no other of this run gets its name.</summary>
    internal void Remove(string disk) => _files.Remove(disk);

    /// <summary>
    /// An adopted worker tells what it has plugged: after hotplug, names do not follow from the spec. Only files that it is known to have
    /// count.
    /// </summary>
    internal void Learn(DeviceList plugged, Func<DeviceInfo, bool> has)
    {
        _files.Clear();
        foreach (DeviceInfo disk in plugged.Devices.Where(device => device.Kind is "disk" && has(device)))
        {
            _files[disk.Name] = disk.Source;
        }
    }

    /// <summary>All of them.</summary>
    internal IReadOnlyCollection<KeyValuePair<string, string>> All => _files;

    /// <summary>The file of a disk; null: this run has none of that name.</summary>
    internal string? FileOf(string disk) => _files.GetValueOrDefault(disk);
}
