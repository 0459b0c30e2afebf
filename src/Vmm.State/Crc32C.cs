using System.Buffers.Binary;
using System.Numerics;

namespace Vmm.State;

/// <summary>CRC-32C (Castagnoli; RFC 3720 appendix B.4), the checksum of saved state.</summary>
public static class Crc32C
{
    /// <summary>Checksum of bytes.</summary>
    /// <param name="bytes">The bytes.</param>
    /// <param name="before">Checksum of the bytes before them.</param>
    public static uint Of(ReadOnlySpan<byte> bytes, uint before = 0)
    {
        uint crc = ~before;
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
}
