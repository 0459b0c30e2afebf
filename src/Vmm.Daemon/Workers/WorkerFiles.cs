using System.Text.Json;
using Vmm.Contracts.Control;

namespace Vmm.Daemon.Workers;

/// <summary>What a VM has in the workers' folder: <c>ID.sock</c>, where its worker listens, and <c>ID.end</c>, where the worker writes how it ended.</summary>
internal sealed class WorkerFiles
{
    private const int LongestRecord = 64 * 1024;

    internal WorkerFiles(string directory, string vmId)
    {
        VmId = vmId;
        Socket = Path.Combine(directory, vmId + ".sock");
        End = Path.Combine(directory, vmId + ".end");
    }

    internal string VmId { get; }

    internal string Socket { get; }

    internal string End { get; }

    /// <summary>Every VM that left something there. Names that are no ids are passed over.</summary>
    internal static List<WorkerFiles> List(string directory)
    {
        List<WorkerFiles> found = [];
        if (Directory.Exists(directory))
        {
            foreach (string path in Directory.EnumerateFiles(directory, "*.sock"))
            {
                string id = Path.GetFileNameWithoutExtension(path);
                if (Guid.TryParse(id, out _))
                {
                    found.Add(new WorkerFiles(directory, id));
                }
            }
        }

        return found;
    }

    /// <summary>The record of the end, bounded; null when there is none. A worker may have written anything.</summary>
    internal WorkerExit? ReadEnd()
    {
        try
        {
            using FileStream file = new(End, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
            if (file.Length is 0 or > LongestRecord)
            {
                return null;
            }

            byte[] bytes = new byte[file.Length];
            file.ReadExactly(bytes);
            return JsonSerializer.Deserialize(bytes, ControlJson.Default.WorkerExit) is { } exit ? WorkerExits.Bounded(exit) : null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or JsonException)
        {
            return null;
        }
    }

    internal void Delete()
    {
        File.Delete(Socket);
        File.Delete(End);
    }
}
