using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>What .NET does not do with folders.</summary>
public static class HostFolder
{
    /// <summary>
    /// Writes the entries of a folder to the disk (fsync(2)): a file that was made, renamed or deleted in it stays so after a power cut.
    /// </summary>
    /// <exception cref="IOException">The folder cannot be opened, or the kernel could not write.</exception>
    public static void Flush(string path)
    {
        int answer = FileCalls.SyncFolder(path);
        if (answer < 0)
        {
            throw new IOException(new KernelException($"fsync {path}", -answer).Message);
        }
    }
}
