using Vmm.Spec;

namespace Vmm.Daemon.Workers;

/// <summary>Disks on file systems that keep files in memory (tmpfs, ramfs): what a guest writes to them is memory of its worker.</summary>
internal static class MemoryDisks
{
    /// <summary>The memory that writing all of the disk takes; 0 for one that lies elsewhere, or cannot be written.</summary>
    internal static long BytesOf(DiskSpec disk)
    {
        try
        {
            return !disk.ReadOnly && File.Exists(disk.Path) && new DriveInfo(disk.Path).DriveFormat is "tmpfs" or "ramfs"
                ? new FileInfo(disk.Path).Length
                : 0;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return 0;
        }
    }
}
