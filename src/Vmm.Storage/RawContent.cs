using Vmm.Interop;
using Vmm.Storage.Qcow2;

namespace Vmm.Storage;

/// <summary>What the content of a raw disk looks like. Nothing follows from it but a remark: a guest may write anything there.</summary>
public static class RawContent
{
    /// <summary>A remark for who attached an image as a raw disk; null when it does not look like that.</summary>
    public static string? Remark(RawFileBackend disk)
    {
        Span<byte> start = stackalloc byte[4];
        try
        {
            return BlockFile.ReadAt(disk.Buffered, start, 0) == start.Length && Qcow2Header.HasMagic(start)
                ? $"disk {disk.Path} is attached as raw, and begins as a qcow2 image does: the guest sees the image's own bytes. "
                    + "If it is an image, say format: qcow2; a guest may also have written that into its raw disk, then all is as it "
                    + "should be"
                : null;
        }
        catch (KernelException)
        {
            return null; // the disk's requests will tell
        }
    }
}
