using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>
/// The socket of a vsock while two workers have the VM: that of the next one is <c>PATH.next</c> until the VM is its own, and PATH then. So
/// a program that connects to PATH reaches the one or the other, and at no time nobody.
/// </summary>
internal static class VsockNames
{
    /// <summary>Listens for the next worker.</summary>
    /// <returns>The listening socket, to be passed.</returns>
    /// <exception cref="KernelException">The path cannot be listened on.</exception>
    internal static FileDescriptorHandle BindNext(string path) => new UnixListener(Next(path)).Handle;

    /// <summary>The next worker's socket gets the name. Also when it has it already.</summary>
    /// <exception cref="IOException">It cannot be renamed; or what has the name is no socket, and is left alone.</exception>
    internal static void TakeName(string path)
    {
        if (!FileFacts.TryOf(Next(path), out FileFacts next) || !next.IsSocket)
        {
            return;
        }

        if (FileFacts.TryOf(path, out FileFacts before) && !before.IsSocket)
        {
            throw new IOException($"{path}: a file that is no socket is there, and is left alone");
        }

        File.Move(Next(path), path, overwrite: true);
    }

    /// <summary>There is no next worker: its name goes.</summary>
    internal static void Drop(string path)
    {
        try
        {
            SocketFile.RemoveDead(Next(path));
        }
        catch (Exception cause) when (cause is KernelException or IOException or UnauthorizedAccessException)
        {
            // It is not ours, or somebody listens still: the next bind says so.
        }
    }

    private static string Next(string path) => path + ".next";
}
