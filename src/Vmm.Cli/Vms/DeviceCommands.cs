using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm limit|devices|attach|detach|resize-disk|copy-disk|snapshot</c>: names, options, help.</summary>
internal static class DeviceCommands
{
    internal static void AddTo(Noun vm)
    {
        AddLimit(vm);
        vm.Add("devices", "Disks and network devices of a VM", VmCommands.Name(), DeviceVerbs.ListAsync);
        AddAttach(vm);
        AddDetach(vm);
        AddResizeDisk(vm);
        AddCopyDisk(vm);
        AddSnapshot(vm);
        AddStream(vm);
        AddCommit(vm);
    }

    private static void AddLimit(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Argument<string> limited = new("device") { Description = "disk0, net1, …; cpu for its time on host CPUs" };
        Option<string?> bandwidth = new("--bandwidth") { Description = "Bytes a second, e.g. 100MiB", HelpName = "size" };
        Option<long?> operations = new("--operations") { Description = "Requests or frames a second", HelpName = "N" };
        Option<string?> quota =
            new("--quota") { Description = "With cpu: most time, in percent of one host CPU, e.g. 150%", HelpName = "percent" };
        Option<int?> weight =
            new("--weight") { Description = "With cpu: share beside other VMs, 1 to 10000; 100 by default", HelpName = "N" };
        Option<bool> none = new("--none") { Description = "No limit" };
        vm.Add("limit", "Limit a disk, a network device or the CPU time of a running VM, until its next start",
            [name, limited, bandwidth, operations, quota, weight, none], (session, parsed, cancellation) =>
            LimitVerb.RunAsync(session, parsed.GetValue(name)!, parsed.GetValue(limited)!,
                new LimitWish(parsed.GetValue(bandwidth), parsed.GetValue(operations), parsed.GetValue(quota), parsed.GetValue(weight),
                    parsed.GetValue(none)),
                cancellation));
    }

    private static void AddAttach(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Option<string?> disk = new("--disk")
        {
            Description = "A disk, as 'vmmctl run --disk' takes it",
            HelpName = "path[,ro][,queues=N][,serial=S][,cache=direct|buffered]"
        };
        Option<string?> net =
            new("--net")
            {
                Description = "A network device, as 'vmmctl run --net' takes it",
                HelpName = "network=NAME|tap=NAME|bridge=NAME|macvtap=NAME|user[,mac=M][,queues=N]",
            };
        Option<bool> temporary = Temporary();
        vm.Add("attach", "Add a disk or network device, also while the VM runs", [name, disk, net, temporary],
            (session, parsed, cancellation) =>
                DeviceVerbs.AttachAsync(
                    session,
                    parsed.GetValue(name)!,
                    parsed.GetValue(disk),
                    parsed.GetValue(net),
                    parsed.GetValue(temporary),
                    cancellation));
    }

    private static void AddDetach(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Argument<string> device = new("device") { Description = "disk0, net1, …" };
        Option<int> patience = new("--timeout")
        {
            Description = "Seconds that the guest has to let go of the device",
            DefaultValueFactory = _ => 30,
            HelpName = "seconds"
        };
        Option<bool> force = new("--force") { Description = "Take it when that time is over" };
        Option<bool> temporary = Temporary();
        vm.Add("detach", "Remove a disk or network device, also while the VM runs: the guest is asked to let go of it",
            [name, device, patience, force, temporary], (session, parsed, cancellation) =>
            DeviceVerbs.DetachAsync(session, parsed.GetValue(name)!, parsed.GetValue(device)!, parsed.GetValue(patience),
                parsed.GetValue(force), parsed.GetValue(temporary), cancellation));
    }

    private static void AddResizeDisk(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Argument<string> disk = new("disk") { Description = "disk0, disk1, …" };
        Option<string?> size = new("--size")
        {
            Description = "Size to grow to, e.g. 20GiB; without it, see how large the host has made it",
            HelpName = "size"
        };
        vm.Add("resize-disk", "Grow a disk, also while the VM runs: the guest sees it at once",
            [name, disk, size], (session, parsed, cancellation) => DeviceVerbs.ResizeDiskAsync(
                session, parsed.GetValue(name)!, parsed.GetValue(disk)!, parsed.GetValue(size), cancellation));
    }

    private static void AddCopyDisk(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Argument<string> disk = new("disk") { Description = "disk0, disk1, …" };
        Argument<string> to = new("to")
        {
            Description = "File to make, in a storage folder of the host; or nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH",
        };
        Option<string?> format = new("--format") { Description = "Format of the copy; that of the disk by default", HelpName = "format" };
        format.AcceptOnlyFromAmong("raw", "qcow2");
        Option<bool> topOnly = new("--top-only")
        {
            Description = "Only what the disk's qcow2 image has itself: the copy stands on the same images below",
        };
        Option<string?> rate = new("--rate") { Description = "Most bytes to copy in a second, e.g. 200MiB", HelpName = "size" };
        Option<string?> cache = new("--cache") { Description = "How the copy is used; as the disk was by default", HelpName = "mode" };
        cache.AcceptOnlyFromAmong("direct", "buffered");
        vm.Add("copy-disk", "Copy a disk of a running VM to another storage and go on there: the guest notices nothing",
            [name, disk, to, format, topOnly, rate, cache], (session, parsed, cancellation) => DeviceVerbs.CopyDiskAsync(
                session, parsed.GetValue(name)!, parsed.GetValue(disk)!, parsed.GetValue(rate), new DiskCopyWish(
                    parsed.GetValue(to)!, parsed.GetValue(cache), Format: parsed.GetValue(format), TopOnly: parsed.GetValue(topOnly)),
                cancellation));
    }

    private static void AddSnapshot(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Option<string[]> disks = new("--disk")
        {
            Description = "disk0, disk1, …, once for each; without it, all that can be written",
            HelpName = "disk",
        };
        Option<string?> tag =
            new("--name") { Description = "What goes into the names of the new files [default: the time]", HelpName = "tag" };
        Option<string[]> to = new("--to") { Description = "File to make, once for each --disk, in their order", HelpName = "file" };
        Option<bool> quiesce = new("--quiesce") { Description = "Freeze the guest's file systems meanwhile, by the agent in it" };
        Option<int?> limit = new("--quiesce-limit")
        {
            Description = "The longest that they are frozen, 1 to 60 [default: 10]; it is frozen then, too",
            HelpName = "seconds",
        };
        Option<bool> required = new("--quiesce-required") { Description = "The same, and no snapshot when they cannot be frozen" };
        vm.Add("snapshot", "Keep the disks of a VM as they are now: it goes on in new differencing disks, also while it runs",
            [name, disks, tag, to, quiesce, limit, required], (session, parsed, cancellation) =>
            {
                bool must = parsed.GetValue(required);
                int? seconds = parsed.GetValue(limit) ?? (must || parsed.GetValue(quiesce) ? 10 : null);
                return SnapshotVerb.RunAsync(
                    session, parsed.GetValue(name)!, new SnapshotWish(
                        parsed.GetValue(tag), OrNull(parsed.GetValue(disks)), OrNull(parsed.GetValue(to)), seconds, must), cancellation);
            });
    }

    private static string[]? OrNull(string[]? given) => given is { Length: > 0 } ? given : null;

    private static void AddStream(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Argument<string> disk = new("disk") { Description = "disk0, disk1, …" };
        Option<string?> until = new("--base") { Description = "The image that it stands on afterwards; else on none", HelpName = "file" };
        Option<string?> rate = new("--rate") { Description = "Most bytes to copy in a second, e.g. 200MiB", HelpName = "size" };
        vm.Add("stream", "Bring into the top image of a running VM's disk what it sees through images below, which are needed no more then",
            [name, disk, until, rate], (session, parsed, cancellation) => DeviceVerbs.StreamDiskAsync(session, parsed.GetValue(name)!,
                parsed.GetValue(disk)!, parsed.GetValue(until), parsed.GetValue(rate), cancellation));
    }

    private static void AddCommit(Noun vm)
    {
        Argument<string> name = VmCommands.Name();
        Argument<string> disk = new("disk") { Description = "disk0, disk1, …" };
        Option<string?> into = new("--base")
        {
            Description = "The image below that gets all of it [default: the one right below the top]",
            HelpName = "file",
        };
        Option<bool> deletes = new("--delete") { Description = "Remove the files of the images above it then" };
        Option<string?> rate = new("--rate") { Description = "Most bytes to copy in a second, e.g. 200MiB", HelpName = "size" };
        vm.Add("commit", "Merge the top image of a running VM's disk into an image below, and go on there: it undoes a snapshot and keeps "
            + "what was written since", [name, disk, into, deletes, rate], (session, parsed, cancellation) => DeviceVerbs.CommitDiskAsync(
                session, parsed.GetValue(name)!, parsed.GetValue(disk)!, parsed.GetValue(into), parsed.GetValue(deletes),
                parsed.GetValue(rate), cancellation));
    }

    private static Option<bool> Temporary() =>
        new("--temporary") { Description = "Leave the stored spec as it is: the next start does not know of this change" };
}
