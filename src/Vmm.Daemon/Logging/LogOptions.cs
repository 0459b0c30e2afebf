using Microsoft.Extensions.Logging;

namespace Vmm.Daemon.Logging;

/// <summary>How a line of the log is written.</summary>
public enum LogFormat
{
    /// <summary>
    /// For people; under systemd without a time, which the journal has, and with the priority that it reads (sd-daemon(3)).
    /// </summary>
    Text,

    /// <summary>An object a line (compact log events: @t, @m, @l, @x, then every property).</summary>
    Json,
}

/// <summary>What the daemon logs, and where.</summary>
public sealed record LogOptions
{
    /// <summary>Bytes after which a log file is put aside.</summary>
    public const long FileBytes = 16 << 20;

    /// <summary>Log files kept, the current one included.</summary>
    public const int FilesKept = 5;

    /// <summary>The least severe that is logged. The web framework's own lines are logged from warnings up.</summary>
    public LogLevel Level { get; init; } = LogLevel.Information;

    /// <summary>How.</summary>
    public LogFormat Format { get; init; }

    /// <summary>
    /// A file beside standard error; null is none. It is put aside at <see cref="FileBytes"/>, <see cref="FilesKept"/> are kept.
    /// </summary>
    public string? File { get; init; }

    /// <summary>The words of all levels.</summary>
    internal const string Levels = "debug, information, warning or error";

    /// <summary>The word of a level that <see cref="TryLevel"/> gave.</summary>
    internal static string Word(LogLevel level) => level.ToString().ToLowerInvariant();

    /// <summary>The level of a word.</summary>
    internal static bool TryLevel(string word, out LogLevel level)
    {
        level = word switch
        {
            "debug" => LogLevel.Debug,
            "information" => LogLevel.Information,
            "warning" => LogLevel.Warning,
            "error" => LogLevel.Error,
            _ => LogLevel.None,
        };
        return level != LogLevel.None;
    }
}
