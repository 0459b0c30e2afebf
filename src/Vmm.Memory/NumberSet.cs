using System.Globalization;

namespace Vmm.Memory;

/// <summary>Sets of CPUs or nodes in the kernel's list form, <c>0-3,8</c>.</summary>
public static class NumberSet
{
    /// <summary>
    /// Parses the form; an empty text is the empty set. Numbers are below <paramref name="limit"/>. Ascending, without repeats.
    /// </summary>
    public static bool TryParse(string text, int limit, out IReadOnlyList<int> numbers)
    {
        List<int> set = [];
        numbers = [];
        foreach (string part in text.Trim().Split(',', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] ends = part.Split('-');
            if (ends.Length > 2
                || !int.TryParse(ends[0], NumberStyles.None, CultureInfo.InvariantCulture, out int first)
                || !int.TryParse(ends[^1], NumberStyles.None, CultureInfo.InvariantCulture, out int last)
                || first > last || last >= limit)
            {
                return false;
            }

            for (int number = first; number <= last; number++)
            {
                int at = set.Count;
                while (at > 0 && set[at - 1] > number)
                {
                    at--;
                }

                if (at == 0 || set[at - 1] != number)
                {
                    set.Insert(at, number);
                }
            }
        }

        numbers = set;
        return true;
    }

    /// <summary>The numbers from <paramref name="first"/> on.</summary>
    public static IReadOnlyList<int> Range(int first, int count)
    {
        int[] numbers = new int[count];
        for (int i = 0; i < count; i++)
        {
            numbers[i] = first + i;
        }

        return numbers;
    }

    /// <summary>Formats ascending numbers with ranges.</summary>
    public static string Format(IReadOnlyList<int> numbers)
    {
        List<string> parts = [];
        for (int i = 0; i < numbers.Count;)
        {
            int end = i;
            while (end + 1 < numbers.Count && numbers[end + 1] == numbers[end] + 1)
            {
                end++;
            }

            parts.Add(end == i ? $"{numbers[i]}" : $"{numbers[i]}-{numbers[end]}");
            i = end + 1;
        }

        return string.Join(',', parts);
    }
}
