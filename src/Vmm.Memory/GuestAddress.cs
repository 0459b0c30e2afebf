using System.Globalization;

namespace Vmm.Memory;

/// <summary>A guest physical address (GPA), in bytes.</summary>
public readonly record struct GuestAddress(ulong Value) : IComparable<GuestAddress>
{
    /// <summary>Guest-made sums: false when the address would wrap.</summary>
    public bool TryAdd(ulong bytes, out GuestAddress sum)
    {
        sum = new(unchecked(Value + bytes));
        return sum.Value >= Value;
    }

    /// <summary>Our own sums: throws <see cref="OverflowException"/> when the address would wrap.</summary>
    public static GuestAddress operator +(GuestAddress address, ulong bytes) => new(checked(address.Value + bytes));

    /// <summary>Named form of the operator.</summary>
    public static GuestAddress Add(GuestAddress address, ulong bytes) => address + bytes;

    /// <inheritdoc/>
    public int CompareTo(GuestAddress other) => Value.CompareTo(other.Value);

    /// <summary>Order by address.</summary>
    public static bool operator <(GuestAddress left, GuestAddress right) => left.Value < right.Value;

    /// <summary>Order by address.</summary>
    public static bool operator >(GuestAddress left, GuestAddress right) => left.Value > right.Value;

    /// <summary>Order by address.</summary>
    public static bool operator <=(GuestAddress left, GuestAddress right) => left.Value <= right.Value;

    /// <summary>Order by address.</summary>
    public static bool operator >=(GuestAddress left, GuestAddress right) => left.Value >= right.Value;

    /// <inheritdoc/>
    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"0x{Value:x}");
}
