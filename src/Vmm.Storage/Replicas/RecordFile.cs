using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Interop;
using Vmm.Storage.Backup;

namespace Vmm.Storage.Replicas;

/// <summary>Small records in files: each is the old one or the new one, never a part. What is read may be anything.</summary>
internal static class RecordFile
{
    /// <summary>Most bytes of a record: a spec and a firmware's variables are the largest parts.</summary>
    internal const int MostBytes = 4 << 20;

    private const int MostDisks = 256, MostWhy = 500;

    /// <summary>Writes a record, and makes it stable with its name.</summary>
    /// <exception cref="BlockException">The host failed.</exception>
    internal static void Write<T>(string path, T record, JsonTypeInfo<T> type)
    {
        string made = path + ".new";
        try
        {
            byte[] bytes = JsonSerializer.SerializeToUtf8Bytes(record, type);
            if (bytes.Length > MostBytes)
            {
                throw new BlockException(
                    BlockErrorKind.BadSize, $"replica file {path} would have {bytes.Length} bytes, and may have {MostBytes}")
                { Path = path };
            }

            using (FileStream file = new(made, FileMode.Create, FileAccess.Write, FileShare.None))
            {
                file.Write(bytes);
                file.Flush(flushToDisk: true);
            }

            File.Move(made, path, overwrite: true);
            HostFolder.Flush(Path.GetDirectoryName(path) ?? "/");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(path, "cannot be written", e);
        }
    }

    /// <summary>Reads a record.</summary>
    /// <exception cref="BlockException">It is not there, is none, or the host failed.</exception>
    internal static T Read<T>(string path, JsonTypeInfo<T> type)
        where T : class
    {
        try
        {
            using FileStream file = File.OpenRead(path);
            byte[] bytes = new byte[Math.Min(file.Length, MostBytes + 1)];
            file.ReadExactly(bytes);
            return (bytes.Length > MostBytes ? null : JsonSerializer.Deserialize(bytes, type))
                ?? throw ReplicaError.Damaged(path, "it has no content, or too much");
        }
        catch (JsonException e)
        {
            string why = e.Message.Length < 200 ? e.Message : e.Message[..200];
            throw ReplicaError.Damaged(path, $"it cannot be read: {why}");
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new BlockException(BlockErrorKind.NotFound, $"replica file {path} is missing", e) { Path = path };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw ReplicaError.Failed(path, "cannot be read", e);
        }
    }

    /// <summary>Reads what a point says of itself.</summary>
    /// <exception cref="BlockException">It is not there, or cannot be one.</exception>
    internal static SealedPoint ReadPoint(string path)
    {
        SealedPoint point = Read(path, ReplicaJson.Default.SealedPoint);
        return ProblemOf(point) is { } problem ? throw ReplicaError.Damaged(path, problem) : point;
    }

    /// <summary>What is wrong with a point that somebody tells of; null: nothing.</summary>
    internal static string? ProblemOf(SealedPoint point) =>
        point.Format != 1 ? $"format {point.Format} is not known to this program, which reads 1"
        : point.Id == Guid.Empty || point.Owner == Guid.Empty || point.Id == point.Parent ? "its id, its owner or its parent cannot be"
        : point.Quiesced is { Length: > MostWhy } ? $"quiesced has more than {MostWhy} letters"
        : point.Spec.Length + (point.Variables?.Length ?? 0) > MostBytes / 2 ? "its spec and variables are too large"
        : point.Disks.Count is 0 or > MostDisks ? $"it has {point.Disks.Count} disks"
        : point.Disks.Any(disk => disk is null || !DeltaFormat.IsName(disk.Name)) ? "a disk has no name"
        : point.Disks.DistinctBy(disk => disk.Name, StringComparer.Ordinal).Count() != point.Disks.Count ? "it has a disk twice"
        : point.Disks.Select(disk => ProblemOf(disk, point.Parent)).FirstOrDefault(problem => problem is not null);

    private static string? ProblemOf(SealedDisk disk, Guid parent) =>
        disk.Bytes == 0 || disk.Bytes % 512 != 0 || disk.Bytes > DeltaFormat.MostDiskBytes ? $"disk {disk.Name} has {disk.Bytes} bytes"
        : disk.Stored is < DeltaFormat.HeaderBytes + DeltaFormat.SealBytes or > DeltaFormat.MostDiskBytes * 2
            ? $"the delta of disk {disk.Name} has {disk.Stored} bytes"
        : !IsHash(disk.Seal) || !IsHash(disk.Root) ? $"seal or root of disk {disk.Name} is no hash"
        : disk.Why is { Length: 0 or > MostWhy } ? $"why disk {disk.Name} is whole is said in no letters, or more than {MostWhy}"
        : disk.Why is null && parent == Guid.Empty ? $"disk {disk.Name} stands on a point, and no point is named"
        : null;

    private static bool IsHash(string? text) => text is { Length: 2 * DeltaFormat.HashBytes } && text.All(char.IsAsciiHexDigit);
}
