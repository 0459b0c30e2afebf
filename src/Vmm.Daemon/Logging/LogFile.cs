using System.Text;
using Serilog;
using Serilog.Core;
using Serilog.Events;
using Serilog.Sinks.File;

namespace Vmm.Daemon.Logging;

/// <summary>
/// The log file, when there is to be one. It can be opened anew while the daemon runs: whoever renamed it (logrotate(8)) gets a new one at
/// the old name. Thread-safe.
/// </summary>
internal sealed class LogFile : ILogEventSink, IDisposable
{
    private readonly Lock _gate = new();
    private readonly LogOptions _options;
    private Logger? _file;

    /// <exception cref="IOException">The file cannot be written.</exception>
    /// <exception cref="UnauthorizedAccessException">The file cannot be written.</exception>
    internal LogFile(LogOptions options)
    {
        _options = options;
        _file = Open();
    }

    /// <inheritdoc/>
    public void Emit(LogEvent logEvent)
    {
        lock (_gate)
        {
            _file?.Write(logEvent);
        }
    }

    /// <summary>Closes it and opens what is at its name now, or makes it. When that fails, the file that is open goes on.</summary>
    /// <returns>Null, or why it could not be opened.</returns>
    internal string? Reopen()
    {
        lock (_gate)
        {
            try
            {
                Logger? next = Open();
                _file?.Dispose();
                _file = next;
                return null;
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                return e.Message;
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
        {
            _file?.Dispose();
            _file = null;
        }
    }

    private Logger? Open()
    {
        if (_options.File is not { } path)
        {
            return null;
        }

        using (FileStream check = new(path, FileMode.Append, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete))
        {
            // The sink itself would go without, and say nothing.
        }

        return new LoggerConfiguration().MinimumLevel.Verbose() // what comes here was chosen before
            .WriteTo.File(
                LogSetup.Formatter(_options.Format, journal: false),
                path,
                fileSizeLimitBytes: LogOptions.FileBytes,
                rollOnFileSizeLimit: true,
                retainedFileCountLimit: LogOptions.FilesKept,
                hooks: new GroupMayRead())
            .CreateLogger();
    }

    private sealed class GroupMayRead : FileLifecycleHooks
    {
        public override Stream OnFileOpened(string path, Stream underlyingStream, Encoding encoding)
        {
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead);
            return underlyingStream;
        }
    }
}
