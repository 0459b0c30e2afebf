namespace Vmm.Interop;

/// <summary>
/// The file of a unix socket. Only one that is a socket, this user's, and that nobody listens on is ever removed: a path that names
/// something else by mistake costs nobody a file.
/// </summary>
public static class SocketFile
{
    /// <summary>Removes a socket that its owner left behind. Nothing there is well, too.</summary>
    /// <param name="path">Path of the socket.</param>
    /// <exception cref="KernelException">Another kind of file (ENOTSOCK), somebody else's (EPERM), or somebody listens
    /// (EADDRINUSE).</exception>
    public static void RemoveDead(string path)
    {
        if (!FileFacts.TryOf(path, out FileFacts found))
        {
            return;
        }

        if (!found.IsSocket)
        {
            throw new KernelException(
                $"listen on {path}: a file that is no socket is there, and is left alone; name another path, or move it away",
                Errno.ENOTSOCK);
        }

        if (found.UserId != Native.OwnUser())
        {
            throw new KernelException(
                $"listen on {path}: a socket of uid {found.UserId} is there, and is left alone; name another path, or remove it",
                Errno.EPERM);
        }

        using UnixStream? other = UnixStream.ConnectNoFollow(path, out int why);
        if (other is not null || why is not (Errno.ECONNREFUSED or Errno.ENOENT))
        {
            throw new KernelException($"listen on {path}: somebody listens there", Errno.EADDRINUSE);
        }

        RemoveIfSame(path, found);
    }

    /// <summary>Removes the name when it still names the file of these facts.</summary>
    public static void RemoveIfSame(string path, FileFacts known)
    {
        if (FileFacts.TryOf(path, out FileFacts now) && now.IsSocket && (now.Device, now.Inode) == (known.Device, known.Inode))
        {
            File.Delete(path);
        }
    }
}
