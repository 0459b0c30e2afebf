namespace Vmm.Machine.Boot;

/// <summary>How a kernel file is packed.</summary>
public enum KernelFormat
{
    /// <summary>Linux bzImage with a 64-bit entry.</summary>
    BzImage,

    /// <summary>ELF64 or ELF32 with a XEN_ELFNOTE_PHYS32_ENTRY note.</summary>
    ElfPvh,

    /// <summary>ELF64 without the note: a plain vmlinux.</summary>
    Elf,
}

/// <summary>Part of a kernel file and where it goes in guest RAM.</summary>
/// <param name="FileOffset">First byte in the file.</param>
/// <param name="FileSize">Bytes taken from the file.</param>
/// <param name="Address">Guest physical address of the first byte.</param>
/// <param name="MemorySize">Bytes of RAM it needs; the rest behind <paramref name="FileSize"/> is zero.</param>
/// <param name="HeaderOffset">Where the file describes it, for errors.</param>
public sealed record KernelSegment(ulong FileOffset, ulong FileSize, ulong Address, ulong MemorySize, ulong HeaderOffset)
{
    /// <summary>Where the file gives the address, for errors.</summary>
    internal ulong AddressOffset { get; init; }
}

/// <summary>A kernel file whose headers were read and found sound. Placing it in RAM is <see cref="BootLoader"/>'s work.</summary>
public sealed class KernelImage : IDisposable
{
    internal KernelImage(
        BootFile file, KernelFormat format, ulong entry, IReadOnlyList<KernelSegment> segments, BzImageHeader? bzImage, ulong entryOffset)
    {
        File = file;
        Format = format;
        EntryPoint = entry;
        EntryFieldOffset = entryOffset;
        Segments = segments;
        BzImage = bzImage;
    }

    /// <summary>The file it came from.</summary>
    public BootFile File { get; }

    /// <summary>What kind of kernel it is.</summary>
    public KernelFormat Format { get; }

    /// <summary>
    /// Entry address for ELF kernels (e_entry, or the PVH note); 0 for a bzImage, whose entry depends on where it is put.
    /// </summary>
    public ulong EntryPoint { get; }

    /// <summary>ELF segments, by address; empty for a bzImage.</summary>
    public IReadOnlyList<KernelSegment> Segments { get; }

    /// <summary>The setup header of a bzImage.</summary>
    public BzImageHeader? BzImage { get; }

    internal ulong EntryFieldOffset { get; }

    /// <summary>Opens and inspects a kernel file.</summary>
    /// <exception cref="BootException">The file cannot be read or is not a kernel this loader can start.</exception>
    public static KernelImage Load(string path) => Load(BootFile.Open(path));

    /// <summary>Inspects a kernel; takes ownership of <paramref name="file"/>.</summary>
    /// <exception cref="BootException">Not a kernel this loader can start.</exception>
    public static KernelImage Load(BootFile file)
    {
        try
        {
            Span<byte> magic = stackalloc byte[4];
            if (file.Contains(0, 4))
            {
                file.Read(0, magic, "magic");
                if (magic.SequenceEqual("\u007fELF"u8))
                {
                    return ElfReader.Read(file);
                }
            }

            if (file.Contains(BzImageHeader.MagicOffset, 4))
            {
                file.Read(BzImageHeader.MagicOffset, magic, "setup_header.header");
                if (magic.SequenceEqual("HdrS"u8))
                {
                    return new KernelImage(file, KernelFormat.BzImage, 0, [], BzImageHeader.Read(file), BzImageHeader.MagicOffset);
                }
            }

            throw ForeignPayload.Describe(file);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => File.Dispose();
}
