using System.Buffers.Binary;

namespace Vmm.Machine.Boot;

/// <summary>The fields of a little-endian ELF file of either class, which stand at different places (gABI chapters 4 and 5).</summary>
/// <param name="wide">ELFCLASS64.</param>
internal readonly struct ElfFields(bool wide)
{
    internal bool Wide => wide;

    internal int HeaderSize => wide ? 64 : 52;

    internal int ProgramHeaderSize => wide ? 56 : 32;

    internal ulong EntryOffset => 24;

    internal ulong TableOffset => wide ? 32u : 28u;

    internal ulong EntrySizeOffset => wide ? 54u : 42u;

    internal ulong CountOffset => wide ? 56u : 44u;

    /// <summary>Offset of p_offset in a program header.</summary>
    internal ulong FileOffsetAt => wide ? 8u : 4u;

    /// <summary>Offset of p_paddr in a program header.</summary>
    internal ulong AddressAt => wide ? 24u : 12u;

    /// <summary>Offset of p_filesz in a program header.</summary>
    internal ulong FileSizeAt => wide ? 32u : 16u;

    /// <summary>Offset of p_memsz in a program header.</summary>
    internal ulong MemorySizeAt => wide ? 40u : 20u;

    /// <summary>An address or size at an offset.</summary>
    internal ulong Word(ReadOnlySpan<byte> bytes, ulong at) =>
        wide ? BinaryPrimitives.ReadUInt64LittleEndian(bytes[(int)at..]) : BinaryPrimitives.ReadUInt32LittleEndian(bytes[(int)at..]);
}
