using System.Globalization;
using System.Text;

namespace Vmm.State;

/// <summary>Text of a saved state in messages: what is read there is untrusted.</summary>
internal static class StateText
{
    private const int Longest = 80;

    /// <summary>At most 80 characters, without those that a terminal would obey.</summary>
    internal static string Printable(string? text)
    {
        if (text is null)
        {
            return "";
        }

        StringBuilder safe = new(Math.Min(text.Length, Longest));
        foreach (char c in text.AsSpan(0, Math.Min(text.Length, Longest)))
        {
            bool isFormat = CharUnicodeInfo.GetUnicodeCategory(c) == UnicodeCategory.Format; // turns the direction of text, for instance
            safe.Append(char.IsControl(c) || char.IsSurrogate(c) || isFormat ? '?' : c);
        }

        return safe.ToString();
    }
}
