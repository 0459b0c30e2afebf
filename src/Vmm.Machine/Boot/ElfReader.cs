using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using Vmm.Spec;

namespace Vmm.Machine.Boot;

/// <summary>Reads the headers of an ELF kernel (System V gABI chapters 4 and 5): ELF64, or ELF32 with a PVH note.</summary>
internal static class ElfReader
{
    private const int MaxProgramHeaders = 256;
    private const uint LoadType = 1;
    private const uint NoteType = 4;

    internal static KernelImage Read(BootFile file)
    {
        Span<byte> header = stackalloc byte[64];
        file.Read(0, header[..20], "ELF header");
        Expect(file, header[4] is 1 or 2, "EI_CLASS", 4, "is neither ELFCLASS32 nor ELFCLASS64");
        ElfFields fields = new(wide: header[4] == 2);
        header = header[..fields.HeaderSize];
        file.Read(0, header, "ELF header");
        CheckKind(file, header, fields);
        ulong table = fields.Word(header, fields.TableOffset);
        int entrySize = BinaryPrimitives.ReadUInt16LittleEndian(header[(int)fields.EntrySizeOffset..]);
        int count = BinaryPrimitives.ReadUInt16LittleEndian(header[(int)fields.CountOffset..]);
        Expect(file, entrySize == fields.ProgramHeaderSize, "e_phentsize", fields.EntrySizeOffset,
            $"{entrySize}, expected {fields.ProgramHeaderSize}");
        Expect(file, count is > 0 and <= MaxProgramHeaders, "e_phnum", fields.CountOffset, $"{count}, expected 1 to {MaxProgramHeaders}");
        Expect(file, file.Contains(table, (ulong)(count * entrySize)), "e_phoff", fields.TableOffset,
            $"program headers at 0x{table:x} end behind the file (0x{file.Length:x} bytes; truncated?)");

        byte[] headers = new byte[count * entrySize];
        file.Read(table, headers, "program headers");
        List<KernelSegment> segments = Segments(file, headers, table, fields);
        if (PvhEntry(file, headers, fields, segments) is { } pvh)
        {
            return new KernelImage(file, KernelFormat.ElfPvh, pvh.Entry, segments, null, pvh.Field);
        }

        if (!fields.Wide)
        {
            throw ForeignPayload.Elf32(file);
        }

        ulong entry = fields.Word(header, fields.EntryOffset);
        Expect(file, IsLoaded(segments, entry), "e_entry", fields.EntryOffset, $"0x{entry:x} is in no loaded segment");
        return new KernelImage(file, KernelFormat.Elf, entry, segments, null, fields.EntryOffset);
    }

    private static void CheckKind(BootFile file, ReadOnlySpan<byte> header, ElfFields fields)
    {
        Expect(file, header[5] == 1, "EI_DATA", 5, "is big endian: a kernel for another architecture than x86-64");
        ushort machine = BinaryPrimitives.ReadUInt16LittleEndian(header[18..]);
        if (machine != 62 && (fields.Wide || machine != 3))
        {
            throw new BootException(file.Name, "e_machine", 18, ForeignPayload.Machine(machine));
        }

        ushort type = BinaryPrimitives.ReadUInt16LittleEndian(header[16..]);
        Expect(file, type == 2, "e_type", 16, $"{type} is not ET_EXEC (2): position-independent and object files cannot be booted");
    }

    private static List<KernelSegment> Segments(BootFile file, byte[] headers, ulong table, ElfFields fields)
    {
        List<KernelSegment> segments = [];
        for (int i = 0; i < headers.Length / fields.ProgramHeaderSize; i++)
        {
            ReadOnlySpan<byte> entry = headers.AsSpan(i * fields.ProgramHeaderSize, fields.ProgramHeaderSize);
            ulong memorySize = fields.Word(entry, fields.MemorySizeAt);
            if (BinaryPrimitives.ReadUInt32LittleEndian(entry) != LoadType || memorySize == 0)
            {
                continue;
            }

            KernelSegment segment = new(
                fields.Word(entry, fields.FileOffsetAt),
                fields.Word(entry, fields.FileSizeAt),
                fields.Word(entry, fields.AddressAt),
                memorySize,
                table + (ulong)(i * fields.ProgramHeaderSize))
            {
                AddressOffset = table + (ulong)(i * fields.ProgramHeaderSize) + fields.AddressAt,
            };
            CheckLoad(file, segment, i, fields);
            segments.Add(segment);
        }

        Expect(file, segments.Count > 0, "e_phnum", fields.CountOffset, "no PT_LOAD segment: nothing to load");
        SortByAddress(segments);
        for (int i = 1; i < segments.Count; i++)
        {
            Expect(file, segments[i].Address - segments[i - 1].Address >= segments[i - 1].MemorySize, "p_paddr", segments[i].AddressOffset,
                $"segment at 0x{segments[i].Address:x} overlaps the one at 0x{segments[i - 1].Address:x}");
        }

        return segments;
    }

    /// <summary>
    /// The entry of the first note that names one in a loaded segment. What cannot be read is as good as absent: the kernel may boot
    /// without.
    /// </summary>
    private static (ulong Entry, ulong Field)? PvhEntry(BootFile file, byte[] headers, ElfFields fields, List<KernelSegment> segments)
    {
        for (int i = 0; i < headers.Length / fields.ProgramHeaderSize; i++)
        {
            ReadOnlySpan<byte> entry = headers.AsSpan(i * fields.ProgramHeaderSize, fields.ProgramHeaderSize);
            if (BinaryPrimitives.ReadUInt32LittleEndian(entry) == NoteType
                && ElfNotes.FindPvhEntry(file, fields.Word(entry, fields.FileOffsetAt), fields.Word(entry, fields.FileSizeAt)) is { } found
                && IsLoaded(segments, found.Entry))
            {
                return found;
            }
        }

        return null;
    }

    private static void CheckLoad(BootFile file, in KernelSegment segment, int index, ElfFields fields)
    {
        Expect(file, segment.FileSize <= segment.MemorySize, "p_filesz", index, segment.HeaderOffset + fields.FileSizeAt,
            $"0x{segment.FileSize:x} is more than p_memsz 0x{segment.MemorySize:x}");
        Expect(file, file.Contains(segment.FileOffset, segment.FileSize), "p_offset", index, segment.HeaderOffset + fields.FileOffsetAt,
            $"0x{segment.FileSize:x} bytes at 0x{segment.FileOffset:x} end behind the file (0x{file.Length:x} bytes; truncated?)");
        Expect(file, segment.Address <= ulong.MaxValue - segment.MemorySize, "p_paddr", index, segment.AddressOffset,
            $"0x{segment.Address:x} + 0x{segment.MemorySize:x} wraps the address space");
    }

    private static void SortByAddress(List<KernelSegment> segments)
    {
        for (int i = 1; i < segments.Count; i++)
        {
            for (int j = i; j > 0 && segments[j - 1].Address > segments[j].Address; j--)
            {
                (segments[j - 1], segments[j]) = (segments[j], segments[j - 1]);
            }
        }
    }

    private static bool IsLoaded(List<KernelSegment> segments, ulong address)
    {
        foreach (KernelSegment segment in segments)
        {
            if (address >= segment.Address && address - segment.Address < segment.FileSize)
            {
                return true;
            }
        }

        return false;
    }

    private static void Expect(
        BootFile file, bool holds, string field, ulong offset, [InterpolatedStringHandlerArgument(nameof(holds))] ComplaintText problem)
    {
        if (!holds)
        {
            throw new BootException(file.Name, field, offset, problem.ToString());
        }
    }

    private static void Expect(BootFile file, bool holds, string field, int header, ulong offset,
        [InterpolatedStringHandlerArgument(nameof(holds))] ComplaintText problem)
    {
        if (!holds)
        {
            throw new BootException(file.Name, $"{field} of program header {header}", offset, problem.ToString());
        }
    }

    private static void Expect(BootFile file, bool holds, string field, ulong offset, string problem)
    {
        if (!holds)
        {
            throw new BootException(file.Name, field, offset, problem);
        }
    }
}
