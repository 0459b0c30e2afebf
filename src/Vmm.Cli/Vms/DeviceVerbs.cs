using Vmm.Cli.Nouns;
using Vmm.Cli.Remote;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Memory;
using Vmm.Spec;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Vms;

/// <summary>
/// <c>vmmctl vm devices|attach|detach|resize-disk|copy-disk|stream|commit</c>: disks and network devices, also while the VM runs.
/// </summary>
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
                ? ("disks", SpecEdit.Item(spec.IsRemote ? spec : spec with { Path = Path.GetFullPath(spec.Path) }))
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
    /// <param name="disk"><c>disk0</c>, …</param>
    /// <param name="size">What it shall grow to; null: it is looked at again.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    internal static async Task<int> ResizeDiskAsync(
        DaemonSession session, string name, string disk, string? size, CancellationToken cancellation)
    {
        long? bytes = size is null ? null
            : SpecText.TryParseSize(size, out ByteSize wanted) && (ulong)wanted <= long.MaxValue ? (long)(ulong)wanted
            : throw new UsageException($"--size {size}: expected a size such as 20GiB");
        DiskSize now = await session.Client.ResizeDiskAsync(name, disk, bytes, cancellation).ConfigureAwait(false);
        return session.Done(now, RestJson.Default.DiskSize, $"{name}: {disk} has {Size(now.SizeBytes)}");
    }

    /// <param name="session">Where to ask.</param>
    /// <param name="name">The VM.</param>
    /// <param name="disk"><c>disk0</c>, …</param>
    /// <param name="rate">Most bytes to copy in a second; null is no limit.</param>
    /// <param name="wish">Where to, and how.</param>
    /// <param name="cancellation">Ends the waiting; the job goes on.</param>
    internal static async Task<int> CopyDiskAsync(
        DaemonSession session, string name, string disk, string? rate, DiskCopyWish wish, CancellationToken cancellation)
    {
        string whole = NbdUri.Is(wish.To) ? wish.To : Path.GetFullPath(wish.To);
        JobInfo job = await session.Client.CopyDiskAsync(
            name, disk, wish with { To = whole, BytesPerSecond = Rate(rate) }, cancellation).ConfigureAwait(false);
        JobInfo ended = await JobFollower.LastAsync(session, job.Id, cancellation).ConfigureAwait(false);
        if (ended.State != JobState.Done)
        {
            session.Fail(ended.Error?.Detail ?? $"{name}: the copy of {disk} was {JobCommands.Word(ended.State)}: it is where it was");
            return ExitCodes.Failed;
        }

        return session.Done(ended, RestJson.Default.JobInfo, $"{name}: {disk} is in {whole} now");
    }

    /// <param name="session">Where to ask.</param>
    /// <param name="name">The VM.</param>
    /// <param name="disk"><c>disk0</c>, …</param>
    /// <param name="baseFile">The image on which it stands afterwards; null: on none.</param>
    /// <param name="rate">Most bytes to copy in a second; null is no limit.</param>
    /// <param name="cancellation">Ends the waiting; the job goes on.</param>
    internal static async Task<int> StreamDiskAsync(
        DaemonSession session, string name, string disk, string? baseFile, string? rate, CancellationToken cancellation)
    {
        string? whole = baseFile?.Contains('/', StringComparison.Ordinal) == true ? Path.GetFullPath(baseFile) : baseFile;
        JobInfo job = await session.Client.StreamDiskAsync(
            name, disk, new DiskStreamWish(whole, Rate(rate)), cancellation).ConfigureAwait(false);
        JobInfo ended = await JobFollower.LastAsync(session, job.Id, cancellation).ConfigureAwait(false);
        if (ended.State != JobState.Done)
        {
            session.Fail(ended.Error?.Detail ?? $"{name}: the stream of {disk} was {JobCommands.Word(ended.State)}: it has all its images");
            return ExitCodes.Failed;
        }

        string now = whole is null ? "on no other image" : $"on {whole}";
        return session.Done(ended, RestJson.Default.JobInfo, $"{name}: {disk} stands {now} now");
    }

    /// <param name="session">Where to ask.</param>
    /// <param name="name">The VM.</param>
    /// <param name="disk"><c>disk0</c>, …</param>
    /// <param name="into">The image that gets the content; null: the one right below the top.</param>
    /// <param name="deletes">Remove the images above it then.</param>
    /// <param name="rate">Most bytes to copy in a second; null is no limit.</param>
    /// <param name="cancellation">Ends the waiting; the job goes on.</param>
    internal static async Task<int> CommitDiskAsync(DaemonSession session, string name, string disk, string? into, bool deletes,
        string? rate, CancellationToken cancellation)
    {
        string? whole = into?.Contains('/', StringComparison.Ordinal) == true ? Path.GetFullPath(into) : into;
        JobInfo job = await session.Client.CommitDiskAsync(
            name, disk, new DiskCommitWish(whole, deletes, Rate(rate)), cancellation).ConfigureAwait(false);
        JobInfo ended = await JobFollower.LastAsync(session, job.Id, cancellation).ConfigureAwait(false);
        if (ended.State != JobState.Done)
        {
            session.Fail(ended.Error?.Detail ?? $"{name}: the commit of {disk} was {JobCommands.Word(ended.State)}: it has all its images");
            return ExitCodes.Failed;
        }

        DeviceList devices = await session.Client.DevicesAsync(name, cancellation).ConfigureAwait(false);
        string now = devices.Devices.FirstOrDefault(each => string.Equals(each.Name, disk, StringComparison.Ordinal))?.Source
            ?? whole ?? "the image below";
        return session.Done(ended, RestJson.Default.JobInfo, $"{name}: {disk} is in {now} now");
    }

    private static ulong? Rate(string? rate) => rate is null ? null
        : SpecText.TryParseSize(rate, out ByteSize wanted) && (ulong)wanted > 0 ? (ulong)wanted
        : throw new UsageException($"--rate {rate}: expected a size such as 200MiB");

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
