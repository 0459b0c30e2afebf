using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Vmm.Storage.Qcow2;

/// <summary>Tables of 64-bit entries, big-endian in the file.</summary>
internal static class TableBytes
{
    /// <summary>Reads so many entries.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal static ulong[] Read(IImageFile file, ulong offset, int entries)
    {
        ulong[] table = new ulong[entries];
        file.Read(MemoryMarshal.AsBytes(table.AsSpan()), offset);
        BinaryPrimitives.ReverseEndianness(table, table);
        return table;
    }

    /// <summary>Writes a table.</summary>
    /// <exception cref="BlockException">The host failed, or has no space.</exception>
    internal static void Write(IImageFile file, ulong offset, ReadOnlySpan<ulong> table)
    {
        ulong[] bytes = new ulong[table.Length];
        BinaryPrimitives.ReverseEndianness(table, bytes);
        file.Write(MemoryMarshal.AsBytes(bytes.AsSpan()), offset);
    }
}
