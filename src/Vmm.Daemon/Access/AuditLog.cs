using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Win32.SafeHandles;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Access;

/// <summary>One line of the audit log.</summary>
/// <param name="At">When.</param>
/// <param name="Request">Number of the request; its two lines have the same.</param>
/// <param name="Stage"><c>asked</c> before it is carried out, <c>done</c> or <c>refused</c> after; of a console <c>opened</c> and
/// <c>closed</c>.</param>
/// <param name="Who">Principal.</param>
/// <param name="From">Address or process it came from.</param>
/// <param name="What">Method and path.</param>
/// <param name="Status">HTTP status of the answer; null before it.</param>
/// <param name="Code">Stable code of the problem; null when there was none.</param>
internal sealed record AuditLine(
    DateTimeOffset At, string Request, string Stage, string Who, string From, string What, int? Status, string? Code);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(AuditLine))]
internal sealed partial class AuditJson : JsonSerializerContext;

/// <summary>
/// Who changed what, and who tried: lines of JSON in one file that only grows, and is put aside when it is large. The line that a change
/// was asked for is on the disk before the change begins: what cannot be written down is not done. A crash leaves at most half a last line,
/// which the next daemon closes. Thread-safe.
/// </summary>
internal sealed class AuditLog : IDisposable
{
    private const long LargestFile = 16 << 20;
    private const int KeptFiles = 8;
    private const int LongestName = 128, LongestWhat = 256;

    private readonly Lock _gate = new();
    private readonly string _path;
    private SafeFileHandle _file;
    private long _length;

    /// <exception cref="IOException">The file cannot be opened.</exception>
    internal AuditLog(string path)
    {
        _path = path;
        (_file, _length) = Open();
    }

    /// <summary>Writes down that a change was asked for, on the disk when this returns.</summary>
    /// <exception cref="ApiException">It cannot be written: the change must not be made.</exception>
    internal void Asked(string request, string who, string from, string what)
    {
        try
        {
            Write(new AuditLine(DateTimeOffset.UtcNow, request, "asked", who, from, what, null, null), flush: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ObjectDisposedException)
        {
            throw new ApiException(
                503,
                "audit-unavailable",
                "changes cannot be recorded",
                $"{_path} cannot be written ({e.Message}), and a change that is not recorded is not made",
                inner: e);
        }
    }

    /// <summary>Writes down what became of it, or that it was refused at once. It cannot fail any more: the answer stands.</summary>
    internal void Answered(string request, string who, string from, string what, int status, string? code) =>
        Note(request, status < 400 ? "done" : "refused", who, from, what, status, code);

    /// <summary>Writes down one more step of what was asked for. It cannot fail any more.</summary>
    internal void Note(string request, string stage, string who, string from, string what, int? status, string? code)
    {
        try
        {
            Write(new AuditLine(DateTimeOffset.UtcNow, request, stage, who, from, what, status, code), flush: false);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ObjectDisposedException)
        {
            // The line that it was asked for is there.
        }
    }

    public void Dispose() => _file.Dispose();

    private void Write(AuditLine line, bool flush)
    {
        AuditLine bounded =
            line with { Who = Clip(line.Who, LongestName), From = Clip(line.From, LongestName), What = Clip(line.What, LongestWhat) };
        byte[] bytes = [.. JsonSerializer.SerializeToUtf8Bytes(bounded, AuditJson.Default.AuditLine), (byte)'\n'];
        lock (_gate)
        {
            if (_length + bytes.Length > LargestFile)
            {
                PutAside();
            }

            RandomAccess.Write(_file, bytes, _length);
            _length += bytes.Length;
            if (flush)
            {
                RandomAccess.FlushToDisk(_file);
            }
        }
    }

    private static string Clip(string text, int most) => text.Length <= most ? text : text[..most] + "…";

    private (SafeFileHandle File, long Length) Open()
    {
        SafeFileHandle file = File.OpenHandle(_path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read);
        File.SetUnixFileMode(_path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        long length = RandomAccess.GetLength(file);
        Span<byte> last = stackalloc byte[1];
        if (length > 0 && RandomAccess.Read(file, last, length - 1) == 1 && last[0] != '\n')
        {
            RandomAccess.Write(file, "\n"u8, length++); // half a line of a daemon that died while it wrote
        }

        return (file, length);
    }

    private void PutAside()
    {
        try
        {
            for (int i = KeptFiles - 1; i >= 1; i--)
            {
                if (File.Exists($"{_path}.{i}"))
                {
                    File.Move($"{_path}.{i}", $"{_path}.{i + 1}", overwrite: true);
                }
            }

            File.Move(_path, _path + ".1", overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return; // the file goes on growing, and the next line tries again
        }

        _file.Dispose();
        (_file, _length) = Open();
    }
}
