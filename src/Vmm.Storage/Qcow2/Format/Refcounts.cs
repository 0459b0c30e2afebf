using System.Buffers.Binary;

namespace Vmm.Storage.Qcow2;

/// <summary>Refcounts in the bytes of a refcount block, 1 to 64 bits each (qcow2.rst, "Host cluster management").</summary>
public static class Refcounts
{
    /// <summary>The refcount of that number in the block.</summary>
    /// <param name="block">The block's bytes, or whole bytes of it.</param>
    /// <param name="index">Its number from the first byte of <paramref name="block"/> on.</param>
    /// <param name="order">log2 of its bits, 0 to 6.</param>
    public static ulong Get(ReadOnlySpan<byte> block, int index, int order) => order switch
    {
        < 3 => (uint)(block[index >> (3 - order)] >> BitOf(index, order)) & MaskOf(order),
        3 => block[index],
        4 => BinaryPrimitives.ReadUInt16BigEndian(block[(index * 2)..]),
        5 => BinaryPrimitives.ReadUInt32BigEndian(block[(index * 4)..]),
        _ => BinaryPrimitives.ReadUInt64BigEndian(block[(index * 8)..]),
    };

    /// <summary>Writes the refcount of that number; <paramref name="value"/> fits into its bits.</summary>
    public static void Set(Span<byte> block, int index, int order, ulong value)
    {
        switch (order)
        {
            case < 3:
                ref byte home = ref block[index >> (3 - order)];
                home = (byte)((home & ~(MaskOf(order) << BitOf(index, order))) | ((uint)value << BitOf(index, order)));
                break;
            case 3:
                block[index] = (byte)value;
                break;
            case 4:
                BinaryPrimitives.WriteUInt16BigEndian(block[(index * 2)..], (ushort)value);
                break;
            case 5:
                BinaryPrimitives.WriteUInt32BigEndian(block[(index * 4)..], (uint)value);
                break;
            default:
                BinaryPrimitives.WriteUInt64BigEndian(block[(index * 8)..], value);
                break;
        }
    }

    // Refcounts smaller than a byte are counted from the lowest bit.
    private static int BitOf(int index, int order) => (index & ((8 >> order) - 1)) << order;

    private static uint MaskOf(int order) => (1u << (1 << order)) - 1;
}
