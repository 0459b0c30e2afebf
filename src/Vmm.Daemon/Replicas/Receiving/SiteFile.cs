using System.Text;
using System.Text.Json;
using Microsoft.Win32.SafeHandles;
using Vmm.Contracts.Rest;
using Vmm.Interop;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>The file <c>site.json</c> of a replica. It changes by a rename, so that it is whole.</summary>
internal static class SiteFile
{
    private const string FileName = "site.json";
    private const int MostBytes = 1 << 20;

    /// <summary>Reads it.</summary>
    /// <param name="folder">The replica's folder.</param>
    /// <exception cref="InvalidDataException">It says nothing sound, or is of another version.</exception>
    /// <exception cref="IOException">It cannot be read.</exception>
    internal static SiteRecord Read(string folder)
    {
        string path = Path.Combine(folder, FileName);
        if (new FileInfo(path).Length > MostBytes)
        {
            throw new InvalidDataException($"{path} is larger than {MostBytes} bytes");
        }

        return Parse(File.ReadAllBytes(path), path);
    }

    /// <summary>Reads the content of one.</summary>
    /// <param name="text">The content.</param>
    /// <param name="path">Whose it is, for messages.</param>
    /// <exception cref="InvalidDataException">It says nothing sound, or is of another version.</exception>
    internal static SiteRecord Parse(ReadOnlySpan<byte> text, string path)
    {
        SiteRecord? record;
        try
        {
            record = JsonSerializer.Deserialize(text, SiteJson.Default.SiteRecord);
        }
        catch (Exception cause) when (cause is JsonException or InvalidOperationException)
        {
            throw new InvalidDataException($"{path} is damaged: {cause.Message}", cause);
        }

        return record switch
        {
            null => throw new InvalidDataException($"{path} is damaged: it says null"),
            { Format: not SiteRecord.Known } => throw new InvalidDataException(
                $"{path} has version {record.Format}, and this vmmd knows {SiteRecord.Known}"),
            _ when Problem(record) is { } problem => throw new InvalidDataException($"{path} is damaged: {problem}"),
            _ => record,
        };
    }

    /// <summary>Writes it; it is stable when this returns.</summary>
    /// <exception cref="IOException">It cannot be written: what was there is as it was.</exception>
    internal static void Write(string folder, SiteRecord record)
    {
        string path = Path.Combine(folder, FileName), part = path + ".part";
        using (SafeFileHandle file = File.OpenHandle(part, FileMode.Create, FileAccess.Write, FileShare.None))
        {
            RandomAccess.Write(file, Encoding.UTF8.GetBytes(JsonSerializer.Serialize(record, SiteJson.Default.SiteRecord)), 0);
            RandomAccess.FlushToDisk(file);
        }

        File.Move(part, path, overwrite: true);
        HostFolder.Flush(folder);
    }

    private static string? Problem(SiteRecord record) =>
        OfferRules.Problem(record.Vm, record.Name, record.Source, record.Generations, record.Disks, record.Keep)
        ?? (record.State == ReplicaSiteState.Receiving != (record.Failover is null) ? "its state does not fit its failover" : null)
        ?? (!Enum.IsDefined(record.State) || record.Failover is { } failover && !Enum.IsDefined(failover.Step) ? "an unknown state" : null)
        ?? (record.Tests.Any(test => test is null) ? "a test that is none" : null);
}
