using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using static Vmm.Cli.Remote.DaemonSession;

namespace Vmm.Cli.Nouns;

/// <summary><c>vmmctl image …</c>: images that the daemon keeps, for disks of VMs to stand on.</summary>
internal static class ImageCommands
{
    // Endings of files that say nothing about what is in them.
    private static readonly string[] s_endings = [".xz", ".gz", ".zst", ".bz2", ".qcow2", ".img", ".raw"];

    internal static Command Create(GlobalOptions options)
    {
        Noun image = new("image", "Images that the daemon keeps: checksummed, read only, for disks of VMs to stand on", options);
        Argument<string> name = new("name") { Description = "Name of the image" };
        image.Add("list", "All images, and which VMs have disks over them", [],
            (session, _, cancellation) => ListAsync(session, cancellation));
        image.Add("show", "One image, with its checksums", name, async (session, which, cancellation) =>
            Show(session, await session.Client.ImageAsync(which, cancellation).ConfigureAwait(false)));
        AddImport(image);
        AddExport(image, name);
        image.Add("delete", "Delete an image that nothing stands on", name, async (session, which, cancellation) =>
        {
            await session.Client.DeleteImageAsync(which, cancellation).ConfigureAwait(false);
            if (!session.IsJson)
            {
                await session.Out.WriteLineAsync($"{which} is deleted").ConfigureAwait(false);
            }

            return ExitCodes.Done;
        });
        return image.Command;
    }

    /// <summary>The name of an image that nobody named: that of its file, without what says how it is packed.</summary>
    internal static string NameOf(string file)
    {
        string name = Path.GetFileName(file);
        while (s_endings.FirstOrDefault(e => name.EndsWith(e, StringComparison.OrdinalIgnoreCase)) is { } ending)
        {
            name = name[..^ending.Length];
        }

        return name;
    }

    private static void AddImport(Noun image)
    {
        Argument<string> file = new("file")
        {
            Description = "File of the daemon's host, in one of its storage folders; .xz, .gz, .zst and .bz2 are unpacked",
            HelpName = "file",
        };
        Option<string?> name = new("--name") { Description = "Name of the image; that of the file by default", HelpName = "name" };
        Option<string?> format = Format("What the file is; looked at once by default");
        image.Add("import", "Take a file in as an image; it can be deleted afterwards", [file, name, format],
            async (session, parsed, cancellation) =>
            {
                string path = Path.GetFullPath(parsed.GetValue(file)!), wanted = parsed.GetValue(name) ?? NameOf(path);
                JobInfo job = await session.Client.ImportImageAsync(
                    new ImageRequest(wanted, path, parsed.GetValue(format)), cancellation).ConfigureAwait(false);
                if (await EndAsync(session, job, cancellation).ConfigureAwait(false) is { } failed)
                {
                    return failed;
                }

                return Show(session, await session.Client.ImageAsync(wanted, cancellation).ConfigureAwait(false));
            });
    }

    private static void AddExport(Noun image, Argument<string> name)
    {
        Argument<string> file = new("file")
        {
            Description = "The new file, on the daemon's host in one of its storage folders",
            HelpName = "file",
        };
        Option<string?> format = Format("What it becomes; as the image is by default");
        image.Add("export", "Write a copy of an image into a new file", [name, file, format], async (session, parsed, cancellation) =>
        {
            string path = Path.GetFullPath(parsed.GetValue(file)!);
            JobInfo job = await session.Client.ExportImageAsync(
                parsed.GetValue(name)!, new ImageExportRequest(path, parsed.GetValue(format)), cancellation).ConfigureAwait(false);
            return await JobFollower.FollowAsync(session, job.Id, Timeout.InfiniteTimeSpan, cancellation).ConfigureAwait(false);
        });
    }

    // Null: it is done.
    private static async Task<int?> EndAsync(DaemonSession session, JobInfo job, CancellationToken cancellation)
    {
        JobInfo last = await JobFollower.LastAsync(session, job.Id, cancellation).ConfigureAwait(false);
        if (last.State == JobState.Done)
        {
            return null;
        }

        session.Fail($"{last.Target}: {last.Error?.Detail ?? "the import was " + JobCommands.Word(last.State)}");
        return last.Error?.Status is 422 or 400 ? ExitCodes.Usage : ExitCodes.Failed;
    }

    private static Option<string?> Format(string help)
    {
        Option<string?> format = new("--format") { Description = help, HelpName = "format" };
        format.AcceptOnlyFromAmong("qcow2", "raw");
        return format;
    }

    private static async Task<int> ListAsync(DaemonSession session, CancellationToken cancellation)
    {
        ImageList list = await session.Client.ImagesAsync(cancellation).ConfigureAwait(false);
        if (session.IsJson)
        {
            return session.Json(list, RestJson.Default.ImageList);
        }

        Table table = new("NAME", "FORMAT", "SIZE", "FILE", "IMPORTED", "USED BY");
        foreach (ImageInfo image in list.Images)
        {
            table.Add(image.Name, image.Format, Size((ulong)image.SizeBytes), Size((ulong)image.FileBytes), Time(image.Imported),
                Users(image));
        }

        return session.Table(table);
    }

    private static int Show(DaemonSession session, ImageInfo image) =>
        session.IsJson ? session.Json(image, RestJson.Default.ImageInfo) : session.Properties(
            ("name", image.Name), ("format", image.Format), ("size", Size((ulong)image.SizeBytes)),
            ("file", $"{image.Path} ({Size((ulong)image.FileBytes)})"), ("sha256", image.Sha256), ("imported from", image.Source),
            ("its sha256", image.SourceSha256), ("imported", Time(image.Imported)), ("used by", Users(image)));

    private static string Users(ImageInfo image) => image.UsedBy.Count == 0 ? "-" : string.Join(", ", image.UsedBy);
}
