using System.Buffers.Binary;
using System.Numerics;

namespace Vmm.State;

/// <summary>CRC-32C (Castagnoli; RFC 3720 appendix B.4), the checksum of saved state.</summary>
public static class Crc32C
{
    // One instruction takes eight bytes, and its result three cycles: three pieces at once keep the processor busy.
    private const int LaneBytes = 4096;

    private const int MostPower = 63;

    // Before the table that is made of it.
    private static readonly uint[] s_zeros = Zeros();

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

    /// <summary>Checksum as if zeros followed, without a look at them: the time grows with the bits of their number.</summary>
    /// <param name="count">How many zeros, in bytes.</param>
    /// <param name="before">Checksum of the bytes before them.</param>
    public static uint OfZeros(ulong count, uint before = 0)
    {
        uint crc = ~before;
        for (int power = 0; count != 0; power++, count >>= 1)
        {
            crc = (count & 1) != 0 ? After(power, crc) : crc;
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

    // What 2^power zeros make of a checksum: it is linear, each of its bits goes its own way.
    private static uint After(int power, uint crc)
    {
        uint after = 0;
        for (ReadOnlySpan<uint> bits = s_zeros.AsSpan(power * 32, 32); crc != 0; crc &= crc - 1)
        {
            after ^= bits[BitOperations.TrailingZeroCount(crc)];
        }

        return after;
    }

    // For each power of two, what so many zeros make of each bit of a checksum: twice what half as many make.
    private static uint[] Zeros()
    {
        uint[] zeros = new uint[(MostPower + 1) * 32];
        for (int bit = 0; bit < 32; bit++)
        {
            zeros[bit] = BitOperations.Crc32C(1u << bit, (byte)0);
        }

        for (int power = 1; power <= MostPower; power++)
        {
            for (int bit = 0; bit < 32; bit++)
            {
                uint after = 0;
                for (uint left = zeros[((power - 1) * 32) + bit]; left != 0; left &= left - 1)
                {
                    after ^= zeros[((power - 1) * 32) + BitOperations.TrailingZeroCount(left)];
                }

                zeros[(power * 32) + bit] = after;
            }
        }

        return zeros;
    }

    // What so many zeros make of each byte of a checksum, by its place.
    private static uint[] Over(int zeros)
    {
        uint[] table = new uint[4 * 256];
        for (int i = 0; i < table.Length; i++)
        {
            table[i] = ~OfZeros((ulong)zeros, ~((uint)(i % 256) << (i / 256 * 8)));
        }

        return table;
    }
}
