using Microsoft.Win32.SafeHandles;
using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>
/// What a VM has in the workers' folder: <c>ID.sock</c>, where its worker listens, and <c>ID.end</c>, where the worker writes how it ended.
/// </summary>
internal sealed class WorkerFiles
{
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
            byte[] bytes = new byte[EndRecord.Length];
            int length = file.ReadAtLeast(bytes, bytes.Length, throwOnEndOfStream: false);
            return EndRecord.Read(bytes.AsSpan(0, length)) is { } exit ? WorkerExits.Bounded(exit) : null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>
    /// Makes the file for the record, in its full size: what the file system has no room for is told now, not when the VM ends.
    /// </summary>
    /// <exception cref="IOException">There is no room, or the folder is gone.</exception>
    internal SafeFileHandle MakeEnd()
    {
        SafeFileHandle file = File.OpenHandle(
            End, FileMode.Create, FileAccess.ReadWrite, FileShare.ReadWrite, preallocationSize: EndRecord.Length);
        RandomAccess.SetLength(file, EndRecord.Length);
        return file;
    }

    internal void Delete()
    {
        File.Delete(Socket);
        File.Delete(End);
    }

    /// <summary>Names that nobody answers to were left by a worker that is gone.</summary>
    /// <exception cref="WorkerException">Somebody answers.</exception>
    internal void RemoveStale()
    {
        try
        {
            PacketSocket.Connect(Socket).Dispose();
        }
        catch (KernelException cause) when (cause.Errno is Errno.ECONNREFUSED or Errno.ENOENT)
        {
            Delete();
            return;
        }
        catch (KernelException)
        {
            // EAGAIN, say: somebody is there, and takes no connections.
        }

        throw new WorkerException(ControlCodes.AlreadyRunning, $"there is a worker for VM {VmId} already");
    }
}
