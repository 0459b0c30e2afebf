using System.Diagnostics;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;

namespace Vmm.Cli.Vms;

/// <summary><c>vmmctl vm edit</c>: the spec in the user's editor, in a folder that nobody else can look into or foresee.</summary>
internal static class SpecEditor
{
    internal static async Task<int> EditAsync(DaemonSession session, string name, CancellationToken cancellation)
    {
        VmInfo before = await session.Client.ShowAsync(name, cancellation).ConfigureAwait(false);
        string yaml = await session.Client.SpecAsync(name, cancellation).ConfigureAwait(false);
        DirectoryInfo folder = Directory.CreateTempSubdirectory("vmmctl-");
        string file = Path.Combine(folder.FullName, name + ".yaml");
        bool keep = false;
        try
        {
            await File.WriteAllTextAsync(file, yaml, cancellation).ConfigureAwait(false);
            if (await OpenEditorAsync(file, cancellation).ConfigureAwait(false) is not 0 and int code)
            {
                session.Fail($"{name}: the editor ended with {code}: the spec is unchanged");
                return ExitCodes.Failed;
            }

            string changed = await File.ReadAllTextAsync(file, cancellation).ConfigureAwait(false);
            if (string.Equals(changed, yaml, StringComparison.Ordinal))
            {
                await session.Out.WriteLineAsync($"{name} is unchanged").ConfigureAwait(false);
                return ExitCodes.Done;
            }

            // From here on there is work that would be lost. No folder goes along: relative paths stay relative to the one of the creation.
            keep = true;
            VmInfo after = await session.Client.ReplaceAsync(name, changed, "", before.Revision, cancellation).ConfigureAwait(false);
            keep = false;
            return VmVerbs.Done(session, after, "is changed");
        }
        finally
        {
            if (keep)
            {
                session.Fail($"{name}: your text is kept in {file}");
            }
            else
            {
                folder.Delete(recursive: true);
            }
        }
    }

    /// <summary>Starts $EDITOR, which may bring arguments of its own, and answers its exit code.</summary>
    private static async Task<int> OpenEditorAsync(string file, CancellationToken cancellation)
    {
        string editor = Environment.GetEnvironmentVariable("EDITOR") is { Length: > 0 } wanted ? wanted : "vi";
        using Process process = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", editor + " \"$1\"", "sh", file]))
            ?? throw new IOException($"{editor} does not start");
        await process.WaitForExitAsync(cancellation).ConfigureAwait(false);
        return process.ExitCode;
    }
}
