using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Spec;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm devices|attach|detach</c>: disks and network devices, also while the VM runs.</summary>
internal static class DeviceVerbs
{
    internal static async Task<int> ListAsync(DaemonSession session, string name, CancellationToken cancellation)
    {
        DeviceList list = await session.Client.DevicesAsync(name, cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(list, RestJson.Default.DeviceList);
        }

        Table table = new("DEVICE", "KIND", "PCI", "VNODE", "STORED", "STATE", "SOURCE");
        foreach (DeviceInfo device in list.Devices)
        {
            table.Add(device.Name, device.ReadOnly ? device.Kind + ", read-only" : device.Kind, device.Address ?? "-",
                device.Vnode is { } vnode ? Number(vnode) : "-", device.Stored ? "yes" : "no",
                device.Removing ? "asked to go" : "ok", device.Source);
        }

        return session.Table(table);
    }

    /// <param name="session">Where to ask.</param>
    /// <param name="name">The VM.</param>
    /// <param name="disk">A disk as <c>vmmctl run --disk</c> takes it; exactly one of disk and net.</param>
    /// <param name="net">A network device as <c>vmmctl run --net</c> takes it.</param>
    /// <param name="temporary">Only for as long as the VM runs.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal static async Task<int> AttachAsync(
        DaemonSession session, string name, string? disk, string? net, bool temporary, CancellationToken cancellation)
    {
        (string list, string yaml) = (disk, net) switch
        {
            ({ } text, null) => SpecOption.TryParseDisk(text, out DiskSpec spec, out string problem)
                ? ("disks", SpecEdit.Item(spec with { Path = Path.GetFullPath(spec.Path) }))
                : throw new UsageException($"--disk {text}: {problem}"),
            (null, { } text) => SpecOption.TryParseNet(text, out NetSpec spec, out string problem)
                ? ("nets", SpecEdit.Item(spec))
                : throw new UsageException($"--net {text}: {problem}"),
            _ => throw new UsageException("vm attach: give either --disk or --net"),
        };
        DeviceInfo added = await session.Client.AttachAsync(name, list, yaml, !temporary, cancellation).ConfigureAwait(false);
        return session.Done(added, RestJson.Default.DeviceInfo, added.Address is { } address
            ? $"{name} has {added.Name} at {address}{(added.Stored ? "" : " until it stops")}"
            : $"{name} has {added.Name} from its next start on");
    }

    /// <param name="session">Where to ask.</param>
    /// <param name="name">The VM.</param>
    /// <param name="device"><c>disk1</c>, <c>net0</c>, …</param>
    /// <param name="timeout">Seconds that the guest has.</param>
    /// <param name="force">Take it after that.</param>
    /// <param name="temporary">The next start has it again.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal static async Task<int> DetachAsync(
        DaemonSession session, string name, string device, int timeout, bool force, bool temporary, CancellationToken cancellation)
    {
        if (timeout is < 0 or > 600)
        {
            throw new UsageException($"--timeout {timeout}: expected 0 to 600 seconds");
        }

        RemovalBody removal = await session.Client.DetachAsync(
            name, device, TimeSpan.FromSeconds(timeout), force, !temporary, cancellation).ConfigureAwait(false);
        return session.Done(removal, RestJson.Default.RemovalBody, removal.Outcome == DeviceRemoval.Forced
            ? $"{device} was taken from {name}: the guest had not let go of it in {timeout} s"
            : $"{name} has no {device} any more");
    }
}
