using System.Globalization;
using System.Runtime.CompilerServices;

namespace Vmm.Storage.Qcow2.Tools;

/// <summary>The text of a finding, which is made only when the report keeps it: a hostile image has millions.</summary>
[InterpolatedStringHandler]
internal ref struct FindingText
{
    private readonly bool _isKept;
    private DefaultInterpolatedStringHandler _text;

    public FindingText(int literalLength, int formattedCount, CheckReport report, out bool isKept)
    {
        _isKept = isKept = report.KeepsMore;
        _text = isKept ? new DefaultInterpolatedStringHandler(literalLength, formattedCount, CultureInfo.InvariantCulture) : default;
    }

    public void AppendLiteral(string value) => _text.AppendLiteral(value);

    public void AppendFormatted<T>(T value) => _text.AppendFormatted(value);

    public void AppendFormatted<T>(T value, string format) => _text.AppendFormatted(value, format);

    /// <summary>The text; empty when it is not kept.</summary>
    internal string Take() => _isKept ? _text.ToStringAndClear() : "";
}
