namespace Vmm.Memory;

/// <summary>A number of 4 KiB pages.</summary>
/// <param name="Value">How many.</param>
public readonly record struct PageCount(ulong Value)
{
    /// <summary>Their size.</summary>
    public ByteSize Size => new(checked(Value * ByteSize.BytesPerPage));

    /// <summary>The number of pages.</summary>
    public static implicit operator ulong(PageCount pages) => pages.Value;

    /// <summary>Sum; throws <see cref="OverflowException"/> beyond 2^64.</summary>
    public static PageCount operator +(PageCount left, PageCount right) => new(checked(left.Value + right.Value));

    /// <summary>Named form of the operator.</summary>
    public static PageCount Add(PageCount left, PageCount right) => left + right;
}
