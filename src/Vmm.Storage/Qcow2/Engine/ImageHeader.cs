using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2;

/// <summary>Changes of the header of an image in use: each lies in one sector, so that it is there whole or not at all.</summary>
internal static class ImageHeader
{
    private const int IncompatibleAt = 72, AutoclearAt = 88, RefcountTableAt = 48, DiskSizeAt = 24, L1SizeAt = 36;

    /// <summary>Names another refcount table.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal static void SetRefcountTable(IImageFile file, ulong offset, uint clusters)
    {
        Span<byte> bytes = stackalloc byte[12];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, offset);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[8..], clusters);
        file.Write(bytes, RefcountTableAt);
    }

    /// <summary>Names another L1 table.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal static void SetL1(IImageFile file, uint entries, ulong offset)
    {
        Span<byte> bytes = stackalloc byte[12];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, entries);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[4..], offset);
        file.Write(bytes, L1SizeAt);
    }

    /// <summary>Says how large the disk is.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal static void SetDiskSize(IImageFile file, ulong size)
    {
        Span<byte> bytes = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, size);
        file.Write(bytes, DiskSizeAt);
    }

    /// <summary>Clears what a writer that does not know it has to clear; stable when this returns.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal static void ClearAutoclear(IImageFile file)
    {
        file.Write(stackalloc byte[8], AutoclearAt);
        file.Flush();
    }

    /// <summary>Says that damage was seen: nobody writes the image before it was repaired.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal static void MarkCorrupt(IImageFile file)
    {
        Span<byte> bits = stackalloc byte[8];
        file.Read(bits, IncompatibleAt);
        bits[7] |= (byte)Qcow2Incompatible.Corrupt;
        file.Write(bits, IncompatibleAt);
        file.Flush();
    }

    /// <summary>The error that stops an image.</summary>
    internal static BlockException Damage(IImageFile file, string what) =>
        new(BlockErrorKind.Damaged, $"disk {file.Path} is damaged: {what}; stop the VM and run: vmmctl disk check {file.Path}")
        {
            Path = file.Path,
        };
}
