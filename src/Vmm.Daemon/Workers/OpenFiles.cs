namespace Vmm.Daemon.Workers;

/// <summary>What files a process has open, as the kernel tells it.</summary>
internal static class OpenFiles
{
    /// <summary>
    /// False when the process certainly does not have the file open: a worker that says so lies. True also when nobody lets us look.
    /// </summary>
    internal static bool MayHold(int processId, string path)
    {
        try
        {
            return Directory.EnumerateFiles($"/proc/{processId}/fd")
                .Any(fd => string.Equals(new FileInfo(fd).LinkTarget, path, StringComparison.Ordinal));
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return true;
        }
    }
}
