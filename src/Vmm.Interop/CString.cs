using System.Runtime.CompilerServices;
using System.Text;

namespace Vmm.Interop;

/// <summary>Strings for C: UTF-8 with a zero behind.</summary>
public static class CString
{
    /// <summary>
    /// The bytes of a text. ASCII is copied by hand: the framework's marshaller brings its whole encoding with it, two milliseconds of a
    /// start that otherwise needs none.
    /// </summary>
    /// <exception cref="ArgumentException">The text contains a zero, which C would take for its end.</exception>
    public static byte[] Of(string text) =>
        TryOf(text, out byte[] bytes) ? bytes : throw new ArgumentException("a zero character in a name for the kernel", nameof(text));

    /// <summary>The same; false for a text with a zero in it.</summary>
    public static bool TryOf(string text, out byte[] bytes)
    {
        bytes = new byte[text.Length + 1];
        bool ascii = true;
        for (int i = 0; i < text.Length; i++)
        {
            char c = text[i];
            if (c == '\0')
            {
                return false;
            }

            ascii &= c <= '\x7F';
            bytes[i] = (byte)c;
        }

        bytes = ascii ? bytes : Encoded(text);
        return true;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static byte[] Encoded(string text) => [.. Encoding.UTF8.GetBytes(text), 0];
}
