using System.Text.Json;
using System.Text.Json.Serialization;

namespace Vmm.Daemon.Security;

/// <summary>One change that was asked for, and what became of it. Never a body, never a secret.</summary>
/// <param name="Time">When it was answered.</param>
/// <param name="Principal">Who; <c>unknown</c> when that could not be found out.</param>
/// <param name="Role">With which role.</param>
/// <param name="Source">From where.</param>
/// <param name="Method">HTTP method.</param>
/// <param name="Path">Path of the request, at most 512 characters.</param>
/// <param name="Status">HTTP status of the answer.</param>
/// <param name="Code">Code of the error answer.</param>
/// <param name="RequestId">As in the log and in the answer.</param>
internal sealed record AuditEntry(DateTimeOffset Time, string Principal, string? Role, string Source, string Method, string Path, int Status, string? Code, string RequestId);

/// <summary>JSON of the audit log.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(AuditEntry))]
internal sealed partial class AuditJson : JsonSerializerContext;

/// <summary>
/// The audit log: one line of JSON for each change, on the disk before its answer goes out. A file's space is taken when it is begun, so that a full
/// disk is noticed before a change and not after it. At its full size it becomes <c>audit.log.1</c>, that one <c>.2</c>, and so on.
/// </summary>
internal sealed class AuditLog(string path, long maxBytes = 4 << 20, int kept = 9) : IDisposable
{
    private readonly Lock _gate = new();
    private FileStream? _file;
    private long _end;

    /// <summary>Called before a change: makes sure that there is room for its line.</summary>
    /// <exception cref="IOException">There is none: the change must not be made.</exception>
    internal void Prepare()
    {
        lock (_gate)
        {
            if (_file is not null && _end >= maxBytes)
            {
                _file.Dispose();
                _file = null;
            }

            _file ??= Open();
        }
    }

    /// <summary>Writes a line and waits until it is on the disk.</summary>
    /// <exception cref="IOException">It could not be written.</exception>
    internal void Append(AuditEntry entry)
    {
        byte[] line = [.. JsonSerializer.SerializeToUtf8Bytes(entry, AuditJson.Default.AuditEntry), (byte)'\n'];
        lock (_gate)
        {
            Prepare();
            try
            {
                RandomAccess.Write(_file!.SafeFileHandle, line, _end);
                RandomAccess.FlushToDisk(_file.SafeFileHandle);
                _end += line.Length;
            }
            catch (Exception e) when (e is IOException or ObjectDisposedException or UnauthorizedAccessException)
            {
                _file!.Dispose();
                _file = null;
                throw new IOException($"{path}: {e.Message}", e);
            }
        }
    }

    /// <summary>All whole lines of a file. A torn last one is what a crash leaves: it was never answered, and it is not read.</summary>
    internal static IEnumerable<AuditEntry> Read(string path)
    {
        string text = File.ReadAllText(path);
        foreach (string line in text[..(text.LastIndexOf('\n') + 1)].Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            yield return JsonSerializer.Deserialize(line, AuditJson.Default.AuditEntry) ?? throw new JsonException($"{path}: null");
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

    private FileStream Open()
    {
        try
        {
            if (File.Exists(path) && new FileInfo(path).Length >= maxBytes)
            {
                for (int i = kept; i > 1; i--)
                {
                    if (File.Exists($"{path}.{i - 1}"))
                    {
                        File.Move($"{path}.{i - 1}", $"{path}.{i}", overwrite: true);
                    }
                }

                File.Move(path, path + ".1", overwrite: true);
            }

            bool anew = !File.Exists(path);
            FileStream file = new(path, new FileStreamOptions
            {
                Mode = anew ? FileMode.CreateNew : FileMode.Open,
                Access = FileAccess.ReadWrite,
                Share = FileShare.ReadWrite | FileShare.Delete,
                BufferSize = 0,
                PreallocationSize = anew ? maxBytes + (64 << 10) : 0,
                UnixCreateMode = anew ? UnixFileMode.UserRead | UnixFileMode.UserWrite : null,
            });
            _end = WholeLines(file);
            return file;
        }
        catch (UnauthorizedAccessException e)
        {
            throw new IOException($"{path}: {e.Message}", e);
        }
    }

    /// <summary>Where the next line goes: behind the last whole one, over what a crash may have torn.</summary>
    private static long WholeLines(FileStream file)
    {
        byte[] tail = new byte[Math.Min(file.Length, 64 << 10)];
        int length = RandomAccess.Read(file.SafeFileHandle, tail, file.Length - tail.Length);
        int last = tail.AsSpan(0, length).LastIndexOf((byte)'\n');
        long end = last < 0 ? 0 : file.Length - tail.Length + last + 1;
        if (last < 0 && file.Length > tail.Length)
        {
            throw new IOException($"{file.Name} is no audit log: move it away");
        }

        if (end != file.Length)
        {
            file.SetLength(end); // only then: it gives the space behind the end back
        }

        return end;
    }
}
