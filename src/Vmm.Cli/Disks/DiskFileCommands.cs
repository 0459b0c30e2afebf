using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Cli.Disks;

/// <summary>
/// Verbs of <c>vmmctl disk</c> for image files of this machine that no VM uses: no daemon is asked, the file is locked meanwhile.
/// </summary>
internal static class DiskFileCommands
{
    internal static void AddTo(Noun disk)
    {
        Argument<string> file = new("file") { Description = "Image file of this machine that no VM uses", HelpName = "file" };
        Option<string> format = DiskFileOptions.Format("--format", "What the file is; never guessed");
        disk.Add("info", "What an image file says of itself", [file, format], (session, parsed, cancellation) =>
            DiskFileSession.RunAsync(
                session, "info", _ => DiskFileView.Info(session, parsed.GetValue(file)!, parsed.GetValue(format)!), cancellation));
        disk.Add("chain", "An image file with all backing files behind it", [file, format], (session, parsed, cancellation) =>
            DiskFileSession.RunAsync(
                session, "chain", _ => DiskFileView.Chain(session, parsed.GetValue(file)!, parsed.GetValue(format)!), cancellation));
        disk.Add("map", "Where each part of a disk lies, over the whole chain", [file, format], (session, parsed, cancellation) =>
            DiskFileSession.RunAsync(
                session,
                "map",
                progress => DiskFileView.Map(session, parsed.GetValue(file)!, parsed.GetValue(format)!, progress),
                cancellation));
        AddCheck(disk, file);
        AddConvert(disk);
        AddResize(disk, file, format);
        AddRebase(disk, file);
        AddStream(disk, file);
        AddSnapshot(disk);
        AddCommit(disk, file);
    }

    private static void AddCheck(Noun disk, Argument<string> file)
    {
        Option<string?> repair = new("--repair")
        {
            Description = "leaks: free what nothing uses; all: also mend refcounts and flags",
            HelpName = "what",
        };
        repair.AcceptOnlyFromAmong("leaks", "all");
        disk.Add(
            "check",
            "Find what is wrong with a qcow2 file; exit code 0 nothing, 1 not checked, 2 corruptions, 3 only leaks",
            [file, repair],
            (session, parsed, cancellation) => DiskFileSession.RunAsync(
                session,
                "check",
                progress => DiskFileView.Check(session, parsed.GetValue(file)!, parsed.GetValue(repair), progress),
                cancellation));
    }

    private static void AddConvert(Noun disk)
    {
        Argument<string> source = new("source") { Description = "Image file of this machine; its chain comes along", HelpName = "file" };
        Argument<string> target = new("target") { Description = "The new file", HelpName = "file" };
        Option<string> from = DiskFileOptions.Format("--from", "What the source is; never guessed");
        Option<string> to = DiskFileOptions.Format("--to", "What the target becomes");
        Option<bool> compress = new("--compress") { Description = "Compress the clusters of a qcow2 target" };
        DiskFileOptions like = new();
        Symbol[] symbols = [source, target, from, to, compress, .. like.All];
        disk.Add("convert", "Copy a disk with its chain into one new file", symbols, (session, parsed, cancellation) =>
        {
            ConvertOptions options = new()
            {
                SourceFormat = parsed.GetValue(from)!,
                TargetFormat = parsed.GetValue(to)!,
                Target = like.Read(parsed, 512),
                Compress = parsed.GetValue(compress),
                Replace = parsed.GetValue(like.Force),
            };
            if (options.Compress && options.TargetFormat is "raw")
            {
                throw new UsageException("--compress: a raw file is not compressed; say --to qcow2");
            }

            return DiskFileSession.RunAsync(session, "convert", progress =>
            {
                ImageConvert.Run(parsed.GetValue(source)!, parsed.GetValue(target)!, options, progress);
                return DiskFileView.Done(session, parsed.GetValue(target)!, options.TargetFormat, "is made");
            }, cancellation);
        });
    }

    private static void AddResize(Noun disk, Argument<string> file, Option<string> format)
    {
        Option<string> size = new("--size") { Description = "Size the guest sees, e.g. 20GiB", HelpName = "size", Required = true };
        Option<bool> shrink = new("--shrink") { Description = "It may become smaller, where nothing is mapped behind the new end" };
        disk.Add("resize", "Give the disk in an image file another size", [file, format, size, shrink], (session, parsed, cancellation) =>
        {
            ulong bytes = DiskFileOptions.Size("--size", parsed.GetValue(size)!);
            string path = parsed.GetValue(file)!, kind = parsed.GetValue(format)!;
            return DiskFileSession.RunAsync(session, "resize", progress =>
            {
                ImageResize.Run(path, kind, bytes, parsed.GetValue(shrink), progress);
                return DiskFileView.Done(session, path, kind, $"has {bytes} bytes");
            }, cancellation);
        });
    }

    private static void AddSnapshot(Noun disk)
    {
        Argument<string> image =
            new("image") { Description = "Image file of this machine that no VM uses; it stays as it is", HelpName = "file" };
        Argument<string> overlay = new("overlay") { Description = "The differencing disk to make", HelpName = "file" };
        Option<string> format = DiskFileOptions.Format("--format", "What the image is; never guessed");
        disk.Add("snapshot", "Make a differencing disk over an image file, to go on there", [image, overlay, format],
            (session, parsed, cancellation) =>
            {
                (string from, string to, string kind) =
                    (parsed.GetValue(image)!, parsed.GetValue(overlay)!, parsed.GetValue(format)!);
                return DiskFileSession.RunAsync(session, "snapshot", _ =>
                {
                    ImageSnapshot.Take(from, kind is "raw" ? ImageFormat.Raw : ImageFormat.Qcow2, to);
                    return DiskFileView.Done(session, to, "qcow2", $"is made over {from}, which has to stay as it is");
                }, cancellation);
            });
    }

    private static void AddRebase(Noun disk, Argument<string> file)
    {
        Option<string?> backing = new("--backing") { Description = "The new backing file, relative to the image", HelpName = "file" };
        Option<string?> format = new("--backing-format") { Description = "Its format: qcow2 or raw; never guessed", HelpName = "format" };
        format.AcceptOnlyFromAmong("qcow2", "raw");
        Option<bool> none = new("--no-backing") { Description = "Have no backing file any more" };
        Option<bool> renameOnly = new("--unsafe") { Description = "Change the name only: the new file has what the old one had" };
        Symbol[] symbols = [file, backing, format, none, renameOnly];
        const string Help = "Put a qcow2 file onto another backing file; the disk keeps its content";
        disk.Add("rebase", Help, symbols, (session, parsed, cancellation) =>
        {
            string path = parsed.GetValue(file)!;
            string? name = parsed.GetValue(backing), kind = parsed.GetValue(format);
            if ((name is null) != parsed.GetValue(none) || (name is null) != (kind is null))
            {
                throw new UsageException("rebase: expected --backing FILE with --backing-format qcow2|raw, or --no-backing");
            }

            return DiskFileSession.RunAsync(session, "rebase", progress =>
            {
                if (parsed.GetValue(renameOnly))
                {
                    ImageRebase.Rename(path, name, kind);
                }
                else
                {
                    ImageRebase.Run(path, name, kind, progress);
                }

                return DiskFileView.Done(session, path, "qcow2", name is null ? "has no backing file" : $"is backed by {name}");
            }, cancellation);
        });
    }

    private static void AddStream(Noun disk, Argument<string> file)
    {
        Option<string?> until = new("--base") { Description = "The image of its chain that it stands on afterwards", HelpName = "file" };
        const string Help = "Bring into a qcow2 file what it sees through files below it, so that it needs them no more";
        disk.Add("stream", Help, [file, until], (session, parsed, cancellation) =>
        {
            string path = parsed.GetValue(file)!;
            string? stays = parsed.GetValue(until);
            return DiskFileSession.RunAsync(session, "stream", progress =>
            {
                ImageStream.Run(path, stays, progress);
                return DiskFileView.Done(session, path, "qcow2", stays is null ? "has no backing file" : $"is backed by {stays}");
            }, cancellation);
        });
    }

    private static void AddCommit(Noun disk, Argument<string> file)
    {
        Option<string?> target = new("--base") { Description = "The image of its chain that gets it: else the next", HelpName = "file" };
        Option<bool> delete = new("--delete") { Description = "Remove the file and those between when the base has everything" };
        const string Help = "Write what a qcow2 file has into a file below it, which becomes the disk";
        disk.Add("commit", Help, [file, target, delete], (session, parsed, cancellation) =>
        {
            string path = parsed.GetValue(file)!;
            return DiskFileSession.RunAsync(session, "commit", progress =>
            {
                (string into, string format) = ImageCommit.Run(path, parsed.GetValue(target), parsed.GetValue(delete), progress);
                return DiskFileView.Done(session, into, format, $"has what {path} had");
            }, cancellation);
        });
    }
}
