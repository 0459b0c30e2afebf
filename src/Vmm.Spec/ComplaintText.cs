using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;

namespace Vmm.Spec;

/// <summary>
/// The text of a complaint, put together only when the check beside it failed: sound input costs no formatting, which is most of what a
/// start of the program would otherwise spend on checks.
/// </summary>
[InterpolatedStringHandler]
public readonly ref struct ComplaintText
{
    private readonly StringBuilder? _text;

    /// <summary>Called by the compiler.</summary>
    public ComplaintText(int literalLength, int formattedCount, bool holds, out bool wanted)
    {
        wanted = !holds;
        _text = holds ? null : new StringBuilder(literalLength + (8 * formattedCount));
    }

    /// <summary>Called by the compiler.</summary>
    public void AppendLiteral(string value) => _text!.Append(value);

    /// <summary>Called by the compiler.</summary>
    public void AppendFormatted(string? value) => _text!.Append(value);

    /// <summary>Called by the compiler.</summary>
    public void AppendFormatted(int value) => _text!.Append(value);

    /// <summary>Called by the compiler.</summary>
    public void AppendFormatted(ulong value) => _text!.Append(value);

    /// <summary>Called by the compiler.</summary>
    public void AppendFormatted(ulong value, string format) => _text!.Append(value.ToString(format, CultureInfo.InvariantCulture));

    /// <summary>The text; empty when the check held.</summary>
    public override string ToString() => _text?.ToString() ?? "";
}
