using System.Globalization;

namespace Vmm.Machine.Spec;

/// <summary>The small notations of the spec: sizes (<c>512MiB</c>) and sets (<c>0-3,8</c>).</summary>
public static class SpecText
{
    /// <summary>Largest member of a set.</summary>
    public const int MaxSetMember = 1023;

    private static readonly (string Suffix, int Shift)[] Units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];

    /// <summary>Reads <c>2GiB</c>, <c>512MiB</c>, <c>64KiB</c>, <c>1TiB</c> or bytes. False on anything else, and on overflow.</summary>
    public static bool TryParseSize(ReadOnlySpan<char> text, out ulong bytes)
    {
        int shift = 0;
        foreach ((string suffix, int unit) in Units)
        {
            if (text.EndsWith(suffix, StringComparison.Ordinal))
            {
                text = text[..^suffix.Length].TrimEnd();
                shift = unit;
                break;
            }
        }

        if (!ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out bytes) || bytes > ulong.MaxValue >> shift)
        {
            bytes = 0;
            return false;
        }

        bytes <<= shift;
        return true;
    }

    /// <summary>Bytes in the largest unit that divides them.</summary>
    public static string FormatSize(ulong bytes)
    {
        for (int i = 3; i >= 0; i--)
        {
            (string suffix, int shift) = Units[i];
            if (bytes != 0 && (bytes & ((1UL << shift) - 1)) == 0)
            {
                return string.Create(CultureInfo.InvariantCulture, $"{bytes >> shift}{suffix}");
            }
        }

        return string.Create(CultureInfo.InvariantCulture, $"{bytes}B");
    }

    /// <summary>Reads <c>0-3,8</c> into ascending numbers; false on bad syntax, a backward range, a repeated member or one above <see cref="MaxSetMember"/>.</summary>
    public static bool TryParseSet(string text, out IReadOnlyList<int> members)
    {
        SortedSet<int> set = [];
        members = [];
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
