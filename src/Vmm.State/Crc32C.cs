using System.Buffers.Binary;
using System.Numerics;

namespace Vmm.State;

/// <summary>CRC-32C (Castagnoli; RFC 3720 appendix B.4), the checksum of saved state.</summary>
public static class Crc32C
{
    // One instruction takes eight bytes, and its result three cycles: three pieces at once keep the processor busy.
    private const int LaneBytes = 4096;

    private static readonly uint[] s_overLane = Over(LaneBytes);

    /// <summary>Checksum of bytes.</summary>
    /// <param name="bytes">The bytes.</param>
    /// <param name="before">Checksum of the bytes before them.</param>
    public static uint Of(ReadOnlySpan<byte> bytes, uint before = 0)
    {
        uint crc = ~before;
        while (bytes.Length >= 3 * LaneBytes)
        {
            crc = OfLanes(bytes, crc);
            bytes = bytes[(3 * LaneBytes)..];
        }

        while (bytes.Length >= sizeof(ulong))
        {
            crc = BitOperations.Crc32C(crc, BinaryPrimitives.ReadUInt64LittleEndian(bytes));
            bytes = bytes[sizeof(ulong)..];
        }

        foreach (byte value in bytes)
        {
            crc = BitOperations.Crc32C(crc, value);
        }

        return ~crc;
    }

    private static uint OfLanes(ReadOnlySpan<byte> bytes, uint crc)
    {
        ReadOnlySpan<byte> first = bytes[..LaneBytes], second = bytes.Slice(LaneBytes, LaneBytes);
        ReadOnlySpan<byte> third = bytes.Slice(2 * LaneBytes, LaneBytes);
        uint a = crc, b = 0, c = 0;
        for (int i = 0; i < LaneBytes; i += sizeof(ulong))
        {
            a = BitOperations.Crc32C(a, BinaryPrimitives.ReadUInt64LittleEndian(first[i..]));
            b = BitOperations.Crc32C(b, BinaryPrimitives.ReadUInt64LittleEndian(second[i..]));
            c = BitOperations.Crc32C(c, BinaryPrimitives.ReadUInt64LittleEndian(third[i..]));
        }

        // The checksum is linear: what a lane left goes on as if zeros followed, and the next lane is added.
        return AfterLane(AfterLane(a) ^ b) ^ c;
    }

    private static uint AfterLane(uint crc) =>
        s_overLane[(byte)crc] ^ s_overLane[256 + (byte)(crc >> 8)] ^ s_overLane[512 + (byte)(crc >> 16)] ^ s_overLane[768 + (crc >> 24)];

    // What so many zeros make of each byte of a checksum, by its place.
    private static uint[] Over(int zeros)
    {
        uint[] bits = new uint[32];
        for (int bit = 0; bit < bits.Length; bit++)
        {
            uint crc = 1u << bit;
            for (int done = 0; done < zeros; done += sizeof(ulong))
            {
                crc = BitOperations.Crc32C(crc, 0UL);
            }

            bits[bit] = crc;
        }

        uint[] table = new uint[4 * 256];
        for (int i = 0; i < table.Length; i++)
        {
            for (int bit = 0; bit < 8; bit++)
            {
                table[i] ^= (i >> bit & 1) != 0 ? bits[(i / 256 * 8) + bit] : 0;
            }
        }

        return table;
    }
}
