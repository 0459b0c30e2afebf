using System.CommandLine;
using Vmm.Cli.Remote;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Cli.Disks;

/// <summary><c>vmmctl disk create</c> with a path instead of a name: a file of this machine.</summary>
internal sealed class DiskFileCreate
{
    private readonly Option<string> _format = DiskFileOptions.Format("--format", "What a file becomes");
    private readonly Option<string?> _backing =
        new("--backing") { Description = "Backing file of a qcow2 file, relative to it", HelpName = "file" };
    private readonly Option<string?> _backingFormat =
        new("--backing-format") { Description = "Its format: qcow2 or raw; never guessed", HelpName = "format" };
    private readonly DiskFileOptions _like = new();

    internal DiskFileCreate() => _backingFormat.AcceptOnlyFromAmong("qcow2", "raw");

    internal Symbol[] Symbols => [_format, _backing, _backingFormat, .. _like.All];

    /// <summary>A name with a slash is a file of this machine, one without is a disk of the daemon.</summary>
    internal static bool IsFile(string name) => name.Contains('/', StringComparison.Ordinal);

    /// <summary>A disk of the daemon has none of these options.</summary>
    /// <exception cref="UsageException">One of them was given.</exception>
    internal void RefuseForDaemon(ParseResult parsed, string name)
    {
        bool any = _like.Any(parsed)
            || Symbols[..3].Any(option => parsed.GetResult(option) is System.CommandLine.Parsing.OptionResult { Implicit: false });
        if (any)
        {
            throw new UsageException(
                $"{name} is a disk of the daemon, which is raw and has none of these options; a file of this machine is written ./{name}");
        }
    }

    /// <summary>Makes the file.</summary>
    internal Task<int> RunAsync(DaemonSession session, ParseResult parsed, string path, string? size, CancellationToken cancellation)
    {
        string format = parsed.GetValue(_format)!;
        string? backing = parsed.GetValue(_backing), backingFormat = parsed.GetValue(_backingFormat);
        if ((backing is null) != (backingFormat is null))
        {
            throw new UsageException("--backing FILE goes with --backing-format qcow2|raw: a format is never guessed");
        }

        if (size is null && backing is null)
        {
            throw new UsageException("--size is missing; only an image with a backing file takes its size from there");
        }

        if (format is "raw" && backing is not null)
        {
            throw new UsageException("--backing: a raw file has no backing file; say --format qcow2");
        }

        ulong? bytes = size is null ? null : DiskFileOptions.Size("--size", size);
        _ = _like.Read(parsed, 512); // refused before anything is made
        return DiskFileSession.RunAsync(session, "create", _ =>
        {
            bool replace = parsed.GetValue(_like.Force);
            if (format is "raw")
            {
                ImageFiles.CreateRaw(path, bytes!.Value, replace);
            }
            else
            {
                ulong own = bytes ?? BackingSize(path, backing!, backingFormat!);
                Qcow2CreateOptions like = _like.Read(parsed, own, isOver: backing is not null);
                Qcow2Creator.Create(path, like with { BackingFile = backing, BackingFormat = backingFormat }, replace);
            }

            return DiskFileView.Done(session, path, format, "is made");
        }, cancellation);
    }

    private static ulong BackingSize(string path, string backing, string format)
    {
        string folder = Path.GetDirectoryName(Path.GetFullPath(path)) ?? "/";
        ulong size = ImageChainInfo.Read(Path.Combine(folder, backing), format)[0].Size;
        return (size + 511) & ~511ul;
    }
}
