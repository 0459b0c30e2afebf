namespace Vmm.Spec;

/// <summary>Spelling of the spec's words: enum members in lower case with hyphens, and the nearest known word for a wrong one.</summary>
public static class Names
{
    /// <summary>The word for an enum member.</summary>
    public static string Of<T>(T value) where T : struct, Enum => Word(value.ToString());

    /// <summary>All words of an enum.</summary>
    public static string[] All<T>() where T : struct, Enum => [.. Enum.GetNames<T>().Select(Word)];

    /// <summary>Reads a word; case matters.</summary>
    public static bool TryParse<T>(string text, out T value) where T : struct, Enum
    {
        foreach (T candidate in Enum.GetValues<T>())
        {
            if (string.Equals(Of(candidate), text, StringComparison.Ordinal))
            {
                value = candidate;
                return true;
            }
        }

        value = default;
        return false;
    }

    /// <summary>The known word closest to a wrong one (Levenshtein, case ignored), or null when none is near.</summary>
    public static string? Nearest(string wrong, IEnumerable<string> known)
    {
        string? best = null;
        int bestDistance = Math.Max(2, wrong.Length / 3) + 1;
        foreach (string candidate in known)
        {
            int distance = Distance(wrong.ToLowerInvariant(), candidate.ToLowerInvariant());
            if (distance < bestDistance)
            {
                (best, bestDistance) = (candidate, distance);
            }
        }

        return best;
    }

    private static string Word(string name)
    {
        System.Text.StringBuilder word = new();
        foreach (char c in name)
        {
            if (char.IsUpper(c) && word.Length > 0)
            {
                word.Append('-');
            }

            word.Append(char.ToLowerInvariant(c));
        }

        return word.ToString();
    }

    private static int Distance(string a, string b)
    {
        if (Math.Abs(a.Length - b.Length) > 16 || a.Length > 64)
        {
            return int.MaxValue;
        }

        int[] row = [.. Enumerable.Range(0, b.Length + 1)];
        for (int i = 1; i <= a.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= b.Length; j++)
            {
                int substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
                diagonal = row[j];
                row[j] = Math.Min(substitute, Math.Min(row[j], row[j - 1]) + 1);
            }
        }

        return row[b.Length];
    }
}
