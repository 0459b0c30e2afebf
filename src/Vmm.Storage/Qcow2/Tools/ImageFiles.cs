using Vmm.Interop;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>Files of images as the offline tools open them: locked, so that no VM and no other tool uses them meanwhile.</summary>
public static class ImageFiles
{
    /// <summary>Opens an image: shared to read, alone to write.</summary>
    /// <exception cref="BlockException">It is missing, forbidden, in use, or neither a file nor a block device.</exception>
    public static RawImageFile Open(string path, bool writable) => new(RawFileBackend.Open(path, new RawFileOptions
    {
        IsImage = true,
        ReadOnly = !writable,
        Cache = DiskCacheMode.Buffered,
    }));

    /// <summary>How an image is opened that is only read.</summary>
    internal static RawFileOptions ToRead { get; } = new() { IsImage = true, ReadOnly = true, Cache = DiskCacheMode.Buffered };

    /// <summary>The same as <see cref="Open"/> for a file that the caller found and opened to read; takes it over.</summary>
    /// <exception cref="BlockException">It is in use, or neither a file nor a block device.</exception>
    internal static RawImageFile OpenFound(string path, FileDescriptorHandle found) => new(RawFileBackend.Open(path, ToRead, found));

    /// <summary>The header of the image in a file.</summary>
    /// <exception cref="BlockException">It is no image, or not one that this program can read.</exception>
    public static Qcow2Header ReadHeader(IImageFile file)
    {
        byte[] fixedPart = new byte[Math.Min(file.Length, 24)];
        file.Read(fixedPart, 0);
        int bits = fixedPart.Length < 24 ? 0 : (int)Math.Clamp(
            System.Buffers.Binary.BinaryPrimitives.ReadUInt32BigEndian(fixedPart.AsSpan(20)),
            Qcow2Geometry.MinClusterBits,
            Qcow2Geometry.MaxClusterBits);
        byte[] cluster = new byte[Math.Min(file.Length, 1ul << bits)];
        file.Read(cluster, 0);
        return Qcow2Header.Parse(cluster, file.Path);
    }

    /// <summary>Makes a raw image that takes no space yet.</summary>
    /// <exception cref="BlockException">The file exists or cannot be made.</exception>
    public static void CreateRaw(string path, ulong size, bool replace = false)
    {
        if (size == 0 || size % 512 != 0)
        {
            throw new BlockException(BlockErrorKind.BadSize, $"disk {path} cannot be made: {size} bytes are not whole sectors of 512 bytes")
            { Path = path };
        }

        using NewImageFile target = NewImageFile.Create(path, replace);
        target.File.Grow(size);
        target.Complete();
    }

    /// <summary>Refuses to write an image whose refcounts or tables cannot be trusted.</summary>
    /// <exception cref="BlockException">It is marked dirty or corrupt.</exception>
    internal static void RequireSound(Qcow2Header header, string path)
    {
        if ((header.Incompatible & (Qcow2Incompatible.Dirty | Qcow2Incompatible.Corrupt)) != 0)
        {
            string what = (header.Incompatible & Qcow2Incompatible.Corrupt) != 0 ? "corrupt" : "dirty (its last writer did not end)";
            throw new BlockException(
                BlockErrorKind.NotADisk, $"disk {path} is marked {what}; mend it first: vmmctl disk check --repair all {path}")
            { Path = path };
        }
    }

    /// <summary>Bytes that the file takes on its file system.</summary>
    public static ulong AllocatedBytes(string path)
    {
        using FileDescriptorHandle file = BlockFile.Open(path, writable: false, direct: false);
        return BlockFile.AllocatedBytes(file);
    }
}
