using Vmm.Daemon.Storage;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2;

namespace Vmm.Daemon.Vms;

/// <summary>What the file of a disk says of it. An image is written by its worker, so this is the word of somebody who may lie.</summary>
/// <param name="Bytes">The size that its guest sees.</param>
/// <param name="Allocated">Bytes that its own file takes on the host; 0 for a device.</param>
/// <param name="Header">The header of a qcow2 image; null for a raw disk.</param>
internal sealed record DiskFacts(ulong Bytes, ulong Allocated, Qcow2Header? Header)
{
    private const int HeaderBytes = 64 * 1024;

    /// <summary>Reads them.</summary>
    /// <param name="vm">The VM, for errors.</param>
    /// <param name="device">The disk's name, for errors.</param>
    /// <param name="disk">The disk, which is no server's.</param>
    /// <param name="storage">Where disks may be.</param>
    /// <exception cref="ApiException">It cannot be read.</exception>
    internal static DiskFacts Read(string vm, string device, DiskSpec disk, StorageFolders storage)
    {
        try
        {
            using FileDescriptorHandle file = storage.Open(disk.Path, writable: false);
            BlockFileInfo info = BlockFile.Inspect(file);
            ulong allocated = info.Kind == BlockFileKind.RegularFile ? BlockFile.AllocatedBytes(file) : 0;
            if (disk.Format != DiskFormat.Qcow2)
            {
                return new DiskFacts(info.Size, allocated, null);
            }

            byte[] start = new byte[Math.Min(info.Size, HeaderBytes)];
            Qcow2Header header = Qcow2Header.Parse(start.AsSpan(0, Math.Max(0, BlockFile.ReadAt(file, start, 0))), disk.Path);
            return new DiskFacts(header.DiskSize, allocated, header);
        }
        catch (Exception cause) when (cause is StorageException or KernelException or BlockException)
        {
            throw new ApiException(422, "disk-refused", "the disk cannot be read", $"{vm}: {device}: {cause.Message}", inner: cause);
        }
    }
}
