using Microsoft.Win32.SafeHandles;
using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>
/// What a VM has in the workers' folder: <c>ID.sock</c>, where its worker listens, and <c>ID.end</c>, where the worker writes how it ended.
/// A worker that gets the VM from another one of this host has <c>ID.MOVE.sock</c> and <c>ID.MOVE.end</c> until that one is gone.
/// </summary>
internal sealed class WorkerFiles
{
    private readonly string _directory;

    /// <param name="directory">The folder.</param>
    /// <param name="vmId">The VM.</param>
    /// <param name="moveId">The move that the worker gets the VM by, 32 hexadecimal digits; null: the names are the VM's.</param>
    internal WorkerFiles(string directory, string vmId, string? moveId = null)
    {
        (_directory, VmId, MoveId) = (directory, vmId, moveId);
        string name = moveId is null ? vmId : $"{vmId}.{moveId}";
        Socket = Path.Combine(directory, name + ".sock");
        End = Path.Combine(directory, name + ".end");
    }

    internal string VmId { get; }

    /// <summary>The move whose names they are; null: they are the VM's.</summary>
    internal string? MoveId { get; }

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
                string[] name = Path.GetFileNameWithoutExtension(path).Split('.', 2);
                if (Guid.TryParse(name[0], out _) && (name.Length == 1 || Guid.TryParseExact(name[1], "N", out _)))
                {
                    found.Add(new WorkerFiles(directory, name[0], name.ElementAtOrDefault(1)));
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

    /// <summary>They get the names of the VM, in place of what has them.</summary>
    /// <returns>The new names.</returns>
    /// <exception cref="IOException">They cannot be renamed.</exception>
    internal WorkerFiles Rename()
    {
        if (MoveId is null)
        {
            return this;
        }

        WorkerFiles named = new(_directory, VmId);
        if (File.Exists(End)) // a daemon that died in between has renamed it
        {
            File.Move(End, named.End, overwrite: true);
        }

        File.Move(Socket, named.Socket, overwrite: true); // last: it is what a daemon finds a worker by
        return named;
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
