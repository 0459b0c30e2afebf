using Vmm.Contracts.Control;
using Vmm.Spec;

namespace Vmm.Daemon.Vms;

/// <summary>Disks and network devices of a spec, as a device list has them.</summary>
internal static class SpecDevices
{
    /// <summary>What the next start plugs in.</summary>
    internal static List<DeviceInfo> List(VmSpec spec) =>
    [
        .. spec.Disks.Select(
            (disk, i) => new DeviceInfo($"disk{i}", "disk", disk.Path, null, disk.ReadOnly, Removing: false, Stored: true, disk.Vnode)),
        .. spec.Nets.Select(
            (net, i) => new DeviceInfo($"net{i}", "net", net.Source, null, ReadOnly: false, Removing: false, Stored: true, net.Vnode)),
    ];

    /// <summary>
    /// Where a device is in its list of the spec; -1: nowhere. Names count per run, files and taps are the same thing in both.
    /// </summary>
    internal static int IndexOf(VmSpec spec, DeviceInfo device)
    {
        List<string> sources = device.Kind is "disk" ? [.. spec.Disks.Select(d => d.Path)] : [.. spec.Nets.Select(n => n.Source)];
        return sources.FindIndex(source => string.Equals(source, device.Source, StringComparison.Ordinal));
    }

    /// <summary>The stored text and the spec without a device.</summary>
    /// <exception cref="ApiException">The text cannot be changed by a program.</exception>
    internal static (string Text, VmSpec Spec) Without(VmRecordStore store, DeviceInfo device) => Edit(
        store,
        (text, folder) => device.Kind is "disk"
            ? SpecEdit.RemoveDisk(text, folder, IndexOf(store.RequireSpec(), device))
            : SpecEdit.RemoveNet(text, folder, IndexOf(store.RequireSpec(), device)),
        spec => device.Kind is "disk"
            ? spec with { Disks = [.. spec.Disks.Where((_, i) => i != IndexOf(spec, device))] }
            : spec with { Nets = [.. spec.Nets.Where((_, i) => i != IndexOf(spec, device))] });

    /// <summary>The stored text and the spec after a change.</summary>
    /// <exception cref="ApiException">The text cannot be changed by a program.</exception>
    internal static (string Text, VmSpec Spec) Edit(VmRecordStore store, Func<string, string?, string?> edit, Func<VmSpec, VmSpec> change)
    {
        Inventory.VmRecord record = store.Record;
        try
        {
            string text = edit(record.Spec, VmRecordStore.FolderOf(record))
                ?? throw new ApiException(409, "spec-not-editable", "the stored spec cannot be changed by a program",
                    $"{record.Name}: its spec is written in a way that cannot be changed without touching the rest of it: use 'vmmctl vm "
                        + $"edit {record.Name}' while it is off, or change the running VM only (--temporary)");
            return (text, change(store.RequireSpec()));
        }
        catch (SpecException e)
        {
            throw ApiException.OfSpec(e);
        }
    }
}
