namespace Vmm.Memory;

/// <summary>A size or length in bytes. It reads as a number; it is made by saying the unit.</summary>
/// <param name="Bytes">The number of bytes.</param>
public readonly record struct ByteSize(ulong Bytes)
{
    /// <summary>An x86 page, the unit of guest memory.</summary>
    public const ulong BytesPerPage = 4096;

    /// <summary>No bytes.</summary>
    public static ByteSize Zero => default;

    /// <summary>Whole pages of 4 KiB; a part of a page is cut off.</summary>
    [System.Text.Json.Serialization.JsonIgnore]
    public PageCount Pages => new(Bytes / BytesPerPage);

    /// <summary>The number of bytes.</summary>
    public static implicit operator ulong(ByteSize size) => size.Bytes;

    /// <summary>Sum; throws <see cref="OverflowException"/> beyond 2^64.</summary>
    public static ByteSize operator +(ByteSize left, ByteSize right) => new(checked(left.Bytes + right.Bytes));

    /// <summary>Named form of the operator.</summary>
    public static ByteSize Add(ByteSize left, ByteSize right) => left + right;

    /// <summary>1024 bytes times <paramref name="count"/>.</summary>
    public static ByteSize KiB(ulong count) => new(checked(count * (1UL << 10)));

    /// <summary>2^20 bytes times <paramref name="count"/>.</summary>
    public static ByteSize MiB(ulong count) => new(checked(count * (1UL << 20)));

    /// <summary>2^30 bytes times <paramref name="count"/>.</summary>
    public static ByteSize GiB(ulong count) => new(checked(count * (1UL << 30)));

    /// <summary>True when this is a whole number of <paramref name="unit"/>s.</summary>
    public bool IsMultipleOf(ByteSize unit) => Bytes % unit.Bytes == 0;

    /// <summary>Bytes in the largest unit that divides them: <c>512MiB</c>.</summary>
    public override string ToString()
    {
        const string Letters = " KMGT";
        for (int i = 4; i >= 1; i--)
        {
            if (Bytes != 0 && (Bytes & ((1UL << (10 * i)) - 1)) == 0)
            {
                return (Bytes >> (10 * i)) + Letters.Substring(i, 1) + "iB";
            }
        }

        return Bytes + "B";
    }
}
