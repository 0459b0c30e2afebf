using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>What files a process has open, as the kernel tells it.</summary>
internal static class OpenFiles
{
    /// <summary>
    /// False when the process certainly does not have the file open: a worker that says so lies. True also when nobody lets us look.
    /// </summary>
    internal static bool MayHold(int processId, string path) =>
        MayHold(processId, fd => string.Equals(new FileInfo(fd).LinkTarget, path, StringComparison.Ordinal));

    /// <summary>The same for a file by what it is, whatever its name.</summary>
    internal static bool MayHold(int processId, FileIdentity file) => MayHold(processId, fd => BlockFile.Identify(fd) == file);

    private static bool MayHold(int processId, Func<string, bool> isIt)
    {
        try
        {
            return Directory.EnumerateFiles($"/proc/{processId}/fd")
                .Any(isIt);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return true;
        }
    }
}
