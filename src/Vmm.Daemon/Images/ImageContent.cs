using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Images;

/// <summary>Looks at what was unpacked: what it is, and whether disks can stand on it. The bytes are a stranger's.</summary>
internal static class ImageContent
{
    /// <summary>Largest disk of an image: as large as one that the daemon makes.</summary>
    internal const ulong MostBytes = 1ul << 46;

    /// <summary>So many bytes from the begin say what it is.</summary>
    internal const int StartBytes = 64;

    private static readonly (byte[] Magic, string What, string Option)[] s_foreign =
    [
        ("KDMV"u8.ToArray(), "a VMware disk (VMDK)", ""),
        ("# Disk DescriptorFile"u8.ToArray(), "the descriptor of a VMware disk (VMDK)", ""),
        ("vhdxfile"u8.ToArray(), "a Hyper-V disk (VHDX)", ""),
        ("conectix"u8.ToArray(), "a disk of Virtual PC or Hyper-V (VHD)", "-f vpc "),
        ("<<< Oracle VM VirtualBox Disk Image >>>"u8.ToArray(), "a VirtualBox disk (VDI)", ""),
    ];

    private static ReadOnlySpan<byte> Qcow2Magic => [(byte)'Q', (byte)'F', (byte)'I', 0xFB];

    /// <summary>What begins so, where nobody said it.</summary>
    /// <param name="start">The first bytes.</param>
    /// <returns><c>qcow2</c> or <c>raw</c>.</returns>
    /// <exception cref="InvalidDataException">It is a disk of another program, or packed.</exception>
    internal static string Probe(ReadOnlySpan<byte> start)
    {
        foreach ((byte[] magic, string what, string option) in s_foreign)
        {
            if (start.StartsWith(magic))
            {
                throw new InvalidDataException(
                    $"is {what}: convert it first (qemu-img convert {option}-O qcow2), or say format raw when its bytes are the disk");
            }
        }

        if (Unpacking.OfContent(start) is { } packing)
        {
            throw new InvalidDataException($"begins as packed data does: give it a name that ends in {packing}, so that it is unpacked, "
                + "or say format raw when its bytes are the disk");
        }

        return start.StartsWith(Qcow2Magic) ? "qcow2" : "raw";
    }

    /// <summary>Sees to it that disks can stand on a file.</summary>
    /// <param name="path">The file, whole.</param>
    /// <param name="format"><c>raw</c> or <c>qcow2</c>.</param>
    /// <param name="progress">Of the check of a qcow2 image; ends it, too.</param>
    /// <returns>Bytes of the disk.</returns>
    /// <exception cref="InvalidDataException">They cannot.</exception>
    internal static ulong Check(string path, string format, ToolProgress progress)
    {
        using RawImageFile file = ImageFiles.Open(path, writable: false);
        ulong size = format is "qcow2" ? CheckQcow2(file, progress) : file.Length;
        return size == 0 ? throw new InvalidDataException("is empty")
            : size % 512 != 0 ? throw new InvalidDataException(
                $"has {size} bytes, which are not whole sectors of 512 bytes: is it a disk? (truncate -s %512 fills the last one)")
            : size > MostBytes ? throw new InvalidDataException($"is a disk of {size >> 40} TiB, at most {MostBytes >> 40} TiB are taken")
            : size;
    }

    private static ulong CheckQcow2(RawImageFile file, ToolProgress progress)
    {
        try
        {
            Qcow2Header header = ImageFiles.ReadHeader(file);
            if (header.BackingFile is { } backing)
            {
                throw new InvalidDataException($"stands on another file, \"{Printable(backing)}\", which would not come along: make one "
                    + "image of both first (vmmctl disk convert)");
            }

            if ((header.Incompatible & Qcow2Incompatible.Dirty) != 0)
            {
                throw new InvalidDataException("is marked dirty (its last writer did not end): vmmctl disk check --repair all");
            }

            CheckReport report = Qcow2Check.Run(file, progress);
            return report.Corruptions == 0 ? header.DiskSize : throw new InvalidDataException(
                $"is damaged in {report.Corruptions} places, the first: "
                    + (report.Findings.FirstOrDefault(f => f.Kind != CheckFindingKind.Leak)?.Text ?? "behind many leaks"));
        }
        catch (BlockException cause)
        {
            // The messages begin with the name of our own file, which nobody knows.
            throw new InvalidDataException(cause.Message.Replace($"disk {file.Path} ", "", StringComparison.Ordinal), cause);
        }
    }

    private static string Printable(string text) => new([.. text.Take(200).Select(c => char.IsControl(c) ? '?' : c)]);
}
