using System.Globalization;
using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>The small notations of the spec: sizes (<c>512MiB</c>), percentages (<c>150%</c>) and sets (<c>0-3,8</c>).</summary>
public static class SpecText
{
    /// <summary>Largest member of a set.</summary>
    public const int MaxSetMember = 1023;

    private const int LongestFraction = 19; // what fits into 64 bits for sure
    private const int LongestSet = 8192; // all members one by one, with spaces

    /// <summary>
    /// Reads <c>2GiB</c>, <c>1.5GiB</c>, <c>512MiB</c>, <c>64KiB</c>, <c>1TiB</c> or bytes. False on anything else, on overflow, and on a
    /// fraction that is not a whole number of bytes or has more than 19 digits.
    /// </summary>
    /// <remarks>Digit by digit: the framework's number parser would be a good part of the program's start.</remarks>
    public static bool TryParseSize(ReadOnlySpan<char> text, out ByteSize size)
    {
        size = default;
        int digits = Digits(text, out ulong whole);
        if (digits <= 0)
        {
            return false;
        }

        ReadOnlySpan<char> rest = text[digits..];
        ulong fraction = 0;
        int places = 0;
        if (rest.Length > 0 && rest[0] == '.')
        {
            places = Digits(rest[1..], out fraction);
            if (places is <= 0 or > LongestFraction)
            {
                return false;
            }

            rest = rest[(places + 1)..];
        }

        if (Shift(rest) is not (>= 0 and int shift) || whole > ulong.MaxValue >> shift || (places > 0 && shift == 0)
            || !TryScale(fraction, places, shift, out ulong part))
        {
            return false;
        }

        size = new ByteSize((whole << shift) + part);
        return true;
    }

    /// <summary>The decimal number at the start; how many digits it has, -1 when it is too large.</summary>
    private static int Digits(ReadOnlySpan<char> text, out ulong value)
    {
        value = 0;
        int at = 0;
        for (; at < text.Length && text[at] is >= '0' and <= '9'; at++)
        {
            uint digit = (uint)(text[at] - '0');
            if (value > (ulong.MaxValue - digit) / 10)
            {
                return -1;
            }

            value = (value * 10) + digit;
        }

        return at;
    }

    /// <summary>A decimal fraction of a power of two; false when that is no whole number.</summary>
    private static bool TryScale(ulong fraction, int places, int shift, out ulong whole)
    {
        // 10^n is 5^n * 2^n: the fraction must have all the fives, and the unit has twos.
        for (int i = 0; i < places; i++)
        {
            if (fraction % 5 != 0)
            {
                whole = 0;
                return false;
            }

            fraction /= 5;
        }

        whole = fraction << shift; // below 2^19 now: no overflow
        bool exact = (whole & ((1UL << places) - 1)) == 0;
        whole >>= places;
        return exact;
    }

    /// <summary>The power of two of a unit, spaces before it allowed; -1 for no unit.</summary>
    private static int Shift(ReadOnlySpan<char> unit)
    {
        bool spaced = unit.Length > 0 && unit[0] == ' ';
        while (unit.Length > 0 && unit[0] == ' ')
        {
            unit = unit[1..];
        }

        return unit.Length switch
        {
            0 => spaced ? -1 : 0,
            1 => unit[0] == 'B' ? 0 : -1,
            3 when unit[1] == 'i' && unit[2] == 'B' => unit[0] switch { 'K' => 10, 'M' => 20, 'G' => 30, 'T' => 40, _ => -1 },
            _ => -1,
        };
    }

    /// <summary>Reads <c>150%</c>, the sign always: without it nobody knows of what. False on anything else, and on overflow.</summary>
    public static bool TryParsePercent(ReadOnlySpan<char> text, out int percent)
    {
        percent = 0;
        return text.Length > 1 && text[^1] == '%' && int.TryParse(text[..^1], NumberStyles.None, CultureInfo.InvariantCulture, out percent);
    }

    /// <summary>
    /// Reads <c>0-3,8</c> into ascending numbers; false on bad syntax, a backward range, a repeated member or one above
    /// <see cref="MaxSetMember"/>.
    /// </summary>
    public static bool TryParseSet(string text, out IReadOnlyList<int> members)
    {
        SortedSet<int> set = [];
        members = [];
        if (text.Length > LongestSet)
        {
            return false;
        }

        foreach (string part in text.Split(','))
        {
            string[] ends = part.Trim().Split('-');
            if (ends.Length > 2 || !TryMember(ends[0], out int first) || !TryMember(ends[^1], out int last) || last < first)
            {
                return false;
            }

            for (int i = first; i <= last; i++)
            {
                if (!set.Add(i))
                {
                    return false;
                }
            }
        }

        members = [.. set];
        return true;
    }

    private static bool TryMember(string text, out int value) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out value) && value <= MaxSetMember;
}
