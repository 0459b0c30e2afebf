using System.Buffers.Binary;
using System.Runtime.CompilerServices;

namespace Vmm.Machine.Boot;

/// <summary>Reads the headers of an ELF64 kernel (System V gABI chapters 4 and 5; Xen public/elfnote.h for the PVH entry).</summary>
internal static class ElfReader
{
    private const int HeaderSize = 64;
    private const int ProgramHeaderSize = 56;
    private const int MaxProgramHeaders = 256;
    private const ulong MaxNoteBytes = 1 << 20;
    private const uint LoadType = 1;
    private const uint NoteType = 4;
    private const uint Phys32Entry = 18;

    internal static KernelImage Read(BootFile file)
    {
        Span<byte> header = stackalloc byte[HeaderSize];
        file.Read(0, header, "ELF header");
        Expect(file, header[4] == 2, "EI_CLASS", 4, "is not ELFCLASS64: a 32-bit ELF file");
        Expect(file, header[5] == 1, "EI_DATA", 5, "is not little endian");
        ushort type = BinaryPrimitives.ReadUInt16LittleEndian(header[16..]);
        Expect(file, type == 2, "e_type", 16, $"{type} is not ET_EXEC (2): position-independent and object files cannot be booted");
        ushort machine = BinaryPrimitives.ReadUInt16LittleEndian(header[18..]);
        Expect(file, machine == 62, "e_machine", 18, $"{machine} is not x86-64 (62)");
        ulong table = BinaryPrimitives.ReadUInt64LittleEndian(header[32..]);
        int entrySize = BinaryPrimitives.ReadUInt16LittleEndian(header[54..]);
        int count = BinaryPrimitives.ReadUInt16LittleEndian(header[56..]);
        Expect(file, entrySize == ProgramHeaderSize, "e_phentsize", 54, $"{entrySize}, expected {ProgramHeaderSize}");
        Expect(file, count is > 0 and <= MaxProgramHeaders, "e_phnum", 56, $"{count}, expected 1 to {MaxProgramHeaders}");
        Expect(file, file.Contains(table, (ulong)(count * ProgramHeaderSize)), "e_phoff", 32, $"program headers at 0x{table:x} end behind the file (0x{file.Length:x} bytes; truncated?)");

        byte[] headers = new byte[count * ProgramHeaderSize];
        file.Read(table, headers, "program headers");
        List<KernelSegment> segments = [];
        ulong? pvhEntry = null;
        ulong entryField = 24;
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> entry = headers.AsSpan(i * ProgramHeaderSize, ProgramHeaderSize);
            ulong at = table + (ulong)(i * ProgramHeaderSize);
            uint kind = BinaryPrimitives.ReadUInt32LittleEndian(entry);
            KernelSegment segment = new(
                BinaryPrimitives.ReadUInt64LittleEndian(entry[8..]),
                BinaryPrimitives.ReadUInt64LittleEndian(entry[32..]),
                BinaryPrimitives.ReadUInt64LittleEndian(entry[24..]),
                BinaryPrimitives.ReadUInt64LittleEndian(entry[40..]),
                at);
            if (kind == LoadType && segment.MemorySize > 0)
            {
                CheckLoad(file, segment, i);
                segments.Add(segment);
            }
            else if (kind == NoteType && pvhEntry is null)
            {
                Expect(file, file.Contains(segment.FileOffset, segment.FileSize), "p_offset", i, at + 8, $"the note ends behind the file (truncated?)");
                pvhEntry = FindPvhEntry(file, segment, BinaryPrimitives.ReadUInt64LittleEndian(entry[48..]), ref entryField);
            }
        }

        Expect(file, segments.Count > 0, "e_phnum", 56, "no PT_LOAD segment: nothing to load");
        SortByAddress(segments);
        for (int i = 1; i < segments.Count; i++)
        {
            Expect(file, segments[i].Address - segments[i - 1].Address >= segments[i - 1].MemorySize, "p_paddr", segments[i].HeaderOffset + 24, $"segment at 0x{segments[i].Address:x} overlaps the one at 0x{segments[i - 1].Address:x}");
        }

        ulong entryPoint = pvhEntry ?? BinaryPrimitives.ReadUInt64LittleEndian(header[24..]);
        string entryName = pvhEntry is null ? "e_entry" : "XEN_ELFNOTE_PHYS32_ENTRY";
        Expect(file, IsLoaded(segments, entryPoint), entryName, entryField, $"0x{entryPoint:x} is in no loaded segment");
        return new KernelImage(file, pvhEntry is null ? KernelFormat.Elf : KernelFormat.ElfPvh, entryPoint, segments, null, entryField);
    }

    private static void CheckLoad(BootFile file, in KernelSegment segment, int index)
    {
        Expect(file, segment.FileSize <= segment.MemorySize, "p_filesz", index, segment.HeaderOffset + 32, $"0x{segment.FileSize:x} is more than p_memsz 0x{segment.MemorySize:x}");
        Expect(file, file.Contains(segment.FileOffset, segment.FileSize), "p_offset", index, segment.HeaderOffset + 8, $"0x{segment.FileSize:x} bytes at 0x{segment.FileOffset:x} end behind the file (0x{file.Length:x} bytes; truncated?)");
        Expect(file, segment.Address <= ulong.MaxValue - segment.MemorySize, "p_paddr", index, segment.HeaderOffset + 24, $"0x{segment.Address:x} + 0x{segment.MemorySize:x} wraps the address space");
    }

    private static ulong? FindPvhEntry(BootFile file, in KernelSegment note, ulong alignment, ref ulong entryField)
    {
        Expect(file, note.FileSize <= MaxNoteBytes, "p_filesz of note", note.HeaderOffset + 32, $"0x{note.FileSize:x} bytes of notes");
        byte[] bytes = new byte[note.FileSize];
        file.Read(note.FileOffset, bytes, "notes");
        ulong unit = alignment == 8 ? 8u : 4u;
        ulong at = 0;
        ulong length = (ulong)bytes.Length;
        while (length - at >= 12)
        {
            ulong nameSize = BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan((int)at));
            ulong descSize = BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan((int)at + 4));
            uint type = BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan((int)at + 8));
            ulong desc = RoundUp(at + 12 + nameSize, unit);
            if (desc > length || descSize > length - desc)
            {
                throw new BootException(file.Name, "note", note.FileOffset + at, $"name of {nameSize} and description of {descSize} bytes end behind the note segment");
            }

            if (type == Phys32Entry && nameSize == 4 && bytes.AsSpan((int)at + 12, 4).SequenceEqual("Xen\0"u8))
            {
                entryField = note.FileOffset + desc;
                ulong entry = descSize switch
                {
                    4 => BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan((int)desc)),
                    8 => BinaryPrimitives.ReadUInt64LittleEndian(bytes.AsSpan((int)desc)),
                    _ => throw new BootException(file.Name, "XEN_ELFNOTE_PHYS32_ENTRY", entryField, $"{descSize} bytes, expected 4 or 8"),
                };
                return entry <= uint.MaxValue ? entry : throw new BootException(file.Name, "XEN_ELFNOTE_PHYS32_ENTRY", entryField, $"0x{entry:x} is above 4 GiB");
            }

            at = Math.Min(length, RoundUp(desc + descSize, unit));
        }

        return null;
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

    private static ulong RoundUp(ulong value, ulong unit) => (value + unit - 1) & ~(unit - 1);

    private static void Expect(BootFile file, bool holds, string field, ulong offset, [InterpolatedStringHandlerArgument(nameof(holds))] ComplaintText problem)
    {
        if (!holds)
        {
            throw new BootException(file.Name, field, offset, problem.ToString());
        }
    }

    private static void Expect(BootFile file, bool holds, string field, int header, ulong offset, [InterpolatedStringHandlerArgument(nameof(holds))] ComplaintText problem)
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
