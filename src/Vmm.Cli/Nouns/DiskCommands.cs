using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using Vmm.Memory;
using Vmm.Spec;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Nouns;

/// <summary><c>vmmctl disk …</c>: disks in the daemon's own folder.</summary>
internal static class DiskCommands
{
    internal static Command Create(GlobalOptions options)
    {
        Noun disk = new("disk", "Virtual disks in the daemon's folder of disks", options);
        Argument<string> name = new("name") { Description = "Name of the disk" };
        Option<string> size = new("--size") { Description = "Size the guest sees, e.g. 20GiB", HelpName = "size", Required = true };
        Option<bool> preallocate = new("--preallocate") { Description = "Take the space now instead of as the guest writes" };
        Option<string?> wait = WaitOption.Create("the disk can be used");
        disk.Add("list", "All disks, and which VMs use them", [], (session, _, cancellation) => ListAsync(session, cancellation));
        disk.Add("show", "One disk", [name], async (session, parsed, cancellation) =>
            Show(session, await session.Client.DiskAsync(parsed.GetValue(name)!, cancellation).ConfigureAwait(false)));
        disk.Add("create", "Make a raw disk", [name, size, preallocate, wait], async (session, parsed, cancellation) =>
        {
            string text = parsed.GetValue(size)!;
            if (!SpecText.TryParseSize(text, out ByteSize bytes) || (ulong)bytes > long.MaxValue)
            {
                throw new UsageException($"--size {text}: expected a size such as 512MiB or 1.5GiB, a whole number of bytes");
            }

            TimeSpan? limit = WaitOption.Read(parsed, wait);
            JobInfo job = await session.Client.CreateDiskAsync(
                new DiskRequest(parsed.GetValue(name)!, (long)(ulong)bytes, Preallocate: parsed.GetValue(preallocate)),
                cancellation).ConfigureAwait(false);
            return await JobFollower.EndAsync(session, job, limit, cancellation).ConfigureAwait(false);
        });
        disk.Add("delete", "Delete a disk that no VM uses, with what is on it", [name], async (session, parsed, cancellation) =>
        {
            await session.Client.DeleteDiskAsync(parsed.GetValue(name)!, cancellation).ConfigureAwait(false);
            if (!session.IsJson)
            {
                await session.Out.WriteLineAsync($"{parsed.GetValue(name)} is deleted").ConfigureAwait(false);
            }

            return ExitCodes.Done;
        });
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
