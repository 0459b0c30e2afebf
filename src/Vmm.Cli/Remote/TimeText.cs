using System.Globalization;

namespace Vmm.Cli.Remote;

/// <summary>Lengths of time as people write them: <c>50ms</c>, <c>30s</c>, <c>10m</c>, <c>2h</c>.</summary>
internal static class TimeText
{
    private static readonly (string Unit, long Milliseconds)[] s_units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

    /// <summary>Reads one.</summary>
    /// <param name="option">The option, for the message.</param>
    /// <param name="text">Its value; null is null.</param>
    /// <param name="most">The longest.</param>
    /// <exception cref="UsageException">It is none, or longer.</exception>
    internal static TimeSpan? Read(string option, string? text, TimeSpan most)
    {
        if (text is null)
        {
            return null;
        }

        string digits = text.TrimEnd('h', 'm', 's');
        (string unit, long milliseconds) = s_units.FirstOrDefault(
            u => string.Equals(text[digits.Length..], u.Unit, StringComparison.Ordinal));
        return unit is not null && long.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out long count)
            && count > 0 && count <= most.TotalMilliseconds / milliseconds
                ? TimeSpan.FromMilliseconds(count * milliseconds)
                : throw new UsageException($"{option} {text}: expected a time such as 50ms, 30s or 10m, at most {Write(most)}");
    }

    private static string Write(TimeSpan time) =>
        time.TotalHours >= 1 ? $"{time.TotalHours:0}h" : time.TotalMinutes >= 1 ? $"{time.TotalMinutes:0}m" : $"{time.TotalSeconds:0}s";
}
