using System.Globalization;

namespace Vmm.Contracts;

/// <summary>
/// Text of somebody who is not trusted (a guest, a worker, the other end of a connection), made fit for terminals, logs and metrics: no
/// control characters (which move cursors, hide text and begin terminal escapes), none that turn the reading direction or are invisible, no
/// halves of surrogate pairs.
/// </summary>
public static class SafeText
{
    /// <summary>The text in one line, at most <paramref name="most"/> characters of it; what does not belong in it is a space.</summary>
    public static string Line(string text, int most = int.MaxValue) => Clean(text, most, lines: false);

    /// <summary>The same, but line feeds and tabs stay.</summary>
    public static string Lines(string text, int most = int.MaxValue) => Clean(text, most, lines: true);

    private static string Clean(string text, int most, bool lines)
    {
        int length = Math.Min(text.Length, most);
        int bad = FirstUnsafe(text, 0, length, lines);
        if (bad < 0)
        {
            return length == text.Length ? text : text[..length];
        }

        char[] kept = text.AsSpan(0, length).ToArray();
        for (; bad >= 0; bad = FirstUnsafe(text, bad + 1, length, lines))
        {
            kept[bad] = ' ';
        }

        return new string(kept);
    }

    private static int FirstUnsafe(string text, int from, int length, bool lines)
    {
        for (int i = from; i < length; i++)
        {
            char c = text[i];
            if (char.IsHighSurrogate(c) && i + 1 < length && char.IsLowSurrogate(text[i + 1]))
            {
                i++;
            }
            else if (!IsSafe(c) && !(lines && (c is '\n' or '\t')))
            {
                return i;
            }
        }

        return -1;
    }

    private static bool IsSafe(char c) => c is >= ' ' and < '\x7f' || (c > '\x9f' && CharUnicodeInfo.GetUnicodeCategory(c)
        is not (UnicodeCategory.Format or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator
            or UnicodeCategory.Surrogate));
}
