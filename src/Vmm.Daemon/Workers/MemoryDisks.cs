using System.Buffers.Binary;
using System.Globalization;
using Vmm.Interop;
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
            return disk.ReadOnly || disk.IsRemote || !AreAt(disk.Path) ? 0
                : disk.Format == DiskFormat.Qcow2 ? BytesOfImage(disk.Path) : new FileInfo(disk.Path).Length;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return 0;
        }
    }

    // What the disk has, and a sixteenth for tables; when it was opened the rest of the header was checked.
    private static long BytesOfImage(string path)
    {
        using Microsoft.Win32.SafeHandles.SafeFileHandle file = File.OpenHandle(path);
        Span<byte> size = stackalloc byte[8];
        ulong disk = RandomAccess.Read(file, size, 24) == size.Length ? BinaryPrimitives.ReadUInt64BigEndian(size) : 0;
        return (long)Math.Min(disk + (disk / 16), long.MaxValue / 2) + RandomAccess.GetLength(file);
    }

    /// <summary>Whether an open file is on such a file system, as far as can be seen.</summary>
    internal static bool IsAt(FileDescriptorHandle file) =>
        AreAt(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{file.DangerousGetHandle()}"));

    /// <summary>Whether a file is on such a file system, as far as can be seen.</summary>
    internal static bool AreAt(string path)
    {
        try
        {
            return File.Exists(path) && new DriveInfo(path).DriveFormat is "tmpfs" or "ramfs";
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return false;
        }
    }
}
