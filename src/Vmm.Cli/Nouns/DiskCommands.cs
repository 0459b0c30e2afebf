using System.CommandLine;
using Vmm.Cli.Disks;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using Vmm.Memory;
using Vmm.Spec;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Nouns;

/// <summary>
/// <c>vmmctl disk …</c>: disks in the daemon's own folder, and image files of this machine (<see cref="DiskFileCommands"/>).
/// </summary>
internal static class DiskCommands
{
    internal static Command Create(GlobalOptions options)
    {
        Noun disk = new("disk", "Virtual disks in the daemon's folder of disks, and image files of this machine", options);
        Argument<string> name = new("name") { Description = "Name of the disk" };
        Argument<string> target = new("name") { Description = "Name of the disk; with a slash (./a.qcow2) a file of this machine" };
        DiskFileCreate file = new();
        Option<string?> size = new("--size") { Description = "Size the guest sees, e.g. 20GiB", HelpName = "size" };
        Option<bool> preallocate = new("--preallocate") { Description = "Take the space now instead of as the guest writes" };
        Option<string?> wait = WaitOption.Create("the disk can be used");
        disk.Add("list", "All disks, and which VMs use them", [], (session, _, cancellation) => ListAsync(session, cancellation));
        disk.Add("show", "One disk", name, async (session, which, cancellation) =>
            Show(session, await session.Client.DiskAsync(which, cancellation).ConfigureAwait(false)));
        Symbol[] making = [target, size, preallocate, wait, .. file.Symbols];
        disk.Add("create", "Make a raw disk of the daemon, or an image file", making, async (session, parsed, cancellation) =>
        {
            string made = parsed.GetValue(target)!;
            if (DiskFileCreate.IsFile(made))
            {
                return await file.RunAsync(session, parsed, made, parsed.GetValue(size), cancellation).ConfigureAwait(false);
            }

            file.RefuseForDaemon(parsed, made);
            string text = parsed.GetValue(size) ?? throw new UsageException("--size is missing");
            if (!SpecText.TryParseSize(text, out ByteSize bytes) || (ulong)bytes > long.MaxValue)
            {
                throw new UsageException($"--size {text}: expected a size such as 512MiB or 1.5GiB, a whole number of bytes");
            }

            TimeSpan? limit = WaitOption.Read(parsed, wait);
            JobInfo job = await session.Client.CreateDiskAsync(
                new DiskRequest(made, (long)(ulong)bytes, Preallocate: parsed.GetValue(preallocate)),
                cancellation).ConfigureAwait(false);
            return await JobFollower.EndAsync(session, job, limit, cancellation).ConfigureAwait(false);
        });
        disk.Add("delete", "Delete a disk that no VM uses, with what is on it", name, async (session, which, cancellation) =>
        {
            await session.Client.DeleteDiskAsync(which, cancellation).ConfigureAwait(false);
            if (!session.IsJson)
            {
                await session.Out.WriteLineAsync($"{which} is deleted").ConfigureAwait(false);
            }

            return ExitCodes.Done;
        });
        DiskFileCommands.AddTo(disk);
        return disk.Command;
    }

    private static async Task<int> ListAsync(DaemonSession session, CancellationToken cancellation)
    {
        DiskList list = await session.Client.DisksAsync(cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(list, RestJson.Default.DiskList);
        }

        Table table = new("NAME", "SIZE", "USED BY", "PATH");
        foreach (DiskInfo disk in list.Disks)
        {
            table.Add(disk.Name, Size((ulong)disk.SizeBytes), Users(disk), disk.Path);
        }

        return session.Table(table);
    }

    private static int Show(DaemonSession session, DiskInfo disk) =>
        session.IsJson ? session.Json(disk, RestJson.Default.DiskInfo) : session.Properties(
            ("name", disk.Name), ("path", disk.Path), ("size", Size((ulong)disk.SizeBytes)), ("used by", Users(disk)));

    private static string Users(DiskInfo disk) => disk.UsedBy.Count == 0 ? "-" : string.Join(", ", disk.UsedBy);
}
