using System.CommandLine;
using System.Globalization;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using Vmm.Storage.Backup;

namespace Vmm.Cli.Disks;

/// <summary>
/// <c>vmmctl backup …</c>: names, options, help. Folders of points are this machine's; only <c>create</c> of a VM asks the daemon.
/// </summary>
internal static class BackupCommands
{
    internal static Command Create(GlobalOptions options)
    {
        Noun backup = new("backup", "Backups of disks in folders of points, of which each has what changed since the one before", options);
        AddCreate(backup);
        Argument<string> folder = new("folder") { Description = "Folder of points", HelpName = "folder" };
        Argument<string> point =
            new("folder") { Description = "Folder of points; with @NUMBER one of them", HelpName = "folder[@point]" };
        backup.Add("list", "The points of a folder: when, what they have, and why that is all of a disk", [folder],
            (session, parsed, cancellation) => DiskFileSession.RunAsync(
                session, "list", _ => BackupView.List(session, BackupFolder.Open(parsed.GetValue(folder)!)), cancellation));
        backup.Add("verify", "Read every point, or one, with all that it stands on, and compare all hashes", [point],
            (session, parsed, cancellation) => DiskFileSession.RunAsync(
                session,
                "verify",
                progress =>
                {
                    (string path, int? number) = PointOf(parsed.GetValue(point)!);
                    return BackupView.Verify(session, BackupFolder.Open(path), number, progress);
                },
                cancellation));
        AddRestore(backup, point);
        AddPrune(backup, folder);
        return backup.Command;
    }

    /// <summary>The folder and the point of <c>FOLDER@3</c>.</summary>
    internal static (string Folder, int? Number) PointOf(string text)
    {
        int at = text.LastIndexOf('@');
        return at > 0 && int.TryParse(text.AsSpan(at + 1), NumberStyles.None, CultureInfo.InvariantCulture, out int number)
            ? (text[..at], number)
            : (text, null);
    }

    private static void AddCreate(Noun backup)
    {
        Argument<string[]> what = new("what")
        {
            Description = "A VM; or image files of this machine that no VM uses, each with a slash in its name (./a.qcow2)",
            HelpName = "vm or file",
            Arity = ArgumentArity.OneOrMore,
        };
        Option<string> to =
            new("--to") { Description = "Folder of points; made when it is not there", HelpName = "folder", Required = true };
        Option<string[]> disks = new("--disk")
        {
            Description = "Of a VM: disk0, disk1, …, once for each; without it, all that can be written",
            HelpName = "disk",
        };
        Option<bool> quiesce = new("--quiesce") { Description = "Of a VM: freeze the guest's file systems at that instant, by its agent" };
        Option<int?> limit = new("--quiesce-limit")
        {
            Description = "The longest that they are frozen, 1 to 60 [default: 10]; they are frozen then, too",
            HelpName = "seconds",
        };
        Option<bool> required = new("--quiesce-required") { Description = "The same, and no backup when they cannot be frozen" };
        Option<string> format = DiskFileOptions.Format("--format", "Of files: what they are; never guessed");
        Option<string?> name =
            new("--name") { Description = "Of files: whose they are [default: the name of the first]", HelpName = "name" };
        Option<bool> full = new("--full") { Description = "Store all of each disk, whatever the point before has" };
        Option<string?> rate = new("--rate") { Description = "Most bytes to read in a second, e.g. 200MiB", HelpName = "size" };
        backup.Add("create", "Make a point: the first has all, the next ones what changed; a VM may run meanwhile",
            [what, to, disks, quiesce, limit, required, format, name, full, rate],
            (session, parsed, cancellation) =>
            {
                string[] names = parsed.GetValue(what)!;
                (string folder, ulong? pace) = (Path.GetFullPath(parsed.GetValue(to)!), Rate(parsed.GetValue(rate)));
                bool isVm = names.Length == 1 && !DiskFileCreate.IsFile(names[0]);
                Symbol[] odd = isVm ? [format, name] : [disks, quiesce, limit, required];
                if (Array.Find(odd, option => parsed.GetResult((Option)option) is { Implicit: false }) is { } given)
                {
                    throw new UsageException($"{given.Name}: not for {(isVm ? "a VM" : "files")}");
                }

                bool must = parsed.GetValue(required);
                return isVm
                    ? BackupVerb.RunAsync(
                        session,
                        names[0],
                        new BackupRequest(
                            folder,
                            parsed.GetValue(disks) is { Length: > 0 } some ? some : null,
                            parsed.GetValue(limit) ?? (must || parsed.GetValue(quiesce) ? 10 : null),
                            must,
                            parsed.GetValue(full),
                            pace),
                        cancellation)
                    : BackupVerb.OfFilesAsync(
                        session, names, parsed.GetValue(format)!, WishOf(folder, names, parsed.GetValue(name), parsed.GetValue(full), pace),
                        cancellation);
            });
    }

    private static BackupWish WishOf(string folder, string[] files, string? name, bool full, ulong? rate)
    {
        string own = name ?? Path.GetFileNameWithoutExtension(files[0]);
        return new BackupWish
        {
            Folder = folder,
            Owner = BackupWish.OwnerOf(own),
            Name = own,
            Time = TimeProvider.System.GetUtcNow(),
            Full = full,
            BytesPerSecond = rate,
        };
    }

    private static ulong? Rate(string? text) => text is null ? null
        : DiskFileOptions.Size("--rate", text) is > 0 and var rate ? rate
        : throw new UsageException("--rate: expected more than 0");

    private static void AddRestore(Noun backup, Argument<string> point)
    {
        Option<string> to =
            new("--to") { Description = "Folder for the new files, such as disk0.qcow2", HelpName = "folder", Required = true };
        Option<string[]> disks = new("--disk")
        {
            Description = "disk0, disk1, …, once for each; without it, all of the point",
            HelpName = "disk",
        };
        Option<string> format = DiskFileOptions.Format("--format", "What the new files are");
        backup.Add("restore", "Make the disks as they were at a point, the newest one without a number", [point, to, disks, format],
            (session, parsed, cancellation) => DiskFileSession.RunAsync(
                session,
                "restore",
                progress =>
                {
                    (string path, int? number) = PointOf(parsed.GetValue(point)!);
                    BackupFolder folder = BackupFolder.Open(path);
                    StoredPoint stored = folder.Require(number);
                    string[] wanted = parsed.GetValue(disks) is { Length: > 0 } some ? some
                        : [.. stored.Point!.Disks.Select(disk => disk.Name)];
                    return BackupView.Restore(session, folder, stored, wanted, parsed.GetValue(to)!, parsed.GetValue(format)!, progress);
                },
                cancellation));
    }

    private static void AddPrune(Noun backup, Argument<string> folder)
    {
        Option<int> keep = new("--keep") { Description = "How many of the newest points stay", HelpName = "number", Required = true };
        backup.Add("prune", "Remove the oldest points; those that stay have all they need", [folder, keep],
            (session, parsed, cancellation) =>
            {
                int number = parsed.GetValue(keep);
                string path = parsed.GetValue(folder)!;
                return number < 1 ? throw new UsageException("--keep: expected 1 or more")
                    : DiskFileSession.RunAsync(
                        session,
                        "prune",
                        progress => BackupView.Pruned(session, path, BackupPruner.Run(path, number, progress)),
                        cancellation);
            });
    }
}
