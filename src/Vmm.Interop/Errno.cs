namespace Vmm.Interop;

/// <summary>
/// Error numbers of Linux, errno(3), for every place that tells one from another. System calls answer them negated. The names are the
/// kernel's own.
/// </summary>
public static class Errno
{
    /// <summary>Operation not permitted.</summary>
    public const int EPERM = 1;

    /// <summary>No such file or directory.</summary>
    public const int ENOENT = 2;

    /// <summary>No such process or thread.</summary>
    public const int ESRCH = 3;

    /// <summary>A signal came first.</summary>
    public const int EINTR = 4;

    /// <summary>Input/output error.</summary>
    public const int EIO = 5;

    /// <summary>No such device or address.</summary>
    public const int ENXIO = 6;

    /// <summary>Too many arguments or entries.</summary>
    public const int E2BIG = 7;

    /// <summary>Bad file descriptor.</summary>
    public const int EBADF = 9;

    /// <summary>No such child.</summary>
    public const int ECHILD = 10;

    /// <summary>Nothing there now; a call that waits would wait.</summary>
    public const int EAGAIN = 11;

    /// <summary>Out of memory.</summary>
    public const int ENOMEM = 12;

    /// <summary>Permission denied.</summary>
    public const int EACCES = 13;

    /// <summary>Bad address.</summary>
    public const int EFAULT = 14;

    /// <summary>Not a block device.</summary>
    public const int ENOTBLK = 15;

    /// <summary>In use.</summary>
    public const int EBUSY = 16;

    /// <summary>File exists.</summary>
    public const int EEXIST = 17;

    /// <summary>No such device.</summary>
    public const int ENODEV = 19;

    /// <summary>Leads to another file system, or out of a folder.</summary>
    public const int EXDEV = 18;

    /// <summary>Not a socket.</summary>
    public const int ENOTSOCK = 88;

    /// <summary>Not a directory.</summary>
    public const int ENOTDIR = 20;

    /// <summary>Is a directory.</summary>
    public const int EISDIR = 21;

    /// <summary>Invalid argument.</summary>
    public const int EINVAL = 22;

    /// <summary>Too many open files in this process.</summary>
    public const int EMFILE = 24;

    /// <summary>The descriptor does not know the ioctl.</summary>
    public const int ENOTTY = 25;

    /// <summary>File too large, or beyond the limit of this process.</summary>
    public const int EFBIG = 27;

    /// <summary>No space left on the file system.</summary>
    public const int ENOSPC = 28;

    /// <summary>Read-only file system.</summary>
    public const int EROFS = 30;

    /// <summary>Nobody reads any more.</summary>
    public const int EPIPE = 32;

    /// <summary>Name too long.</summary>
    public const int ENAMETOOLONG = 36;

    /// <summary>The kernel has no such call.</summary>
    public const int ENOSYS = 38;

    /// <summary>Too many symbolic links, or one where none may be.</summary>
    public const int ELOOP = 40;

    /// <summary>The descriptor is in no state for this: a tap queue that is detached, or whose interface is gone.</summary>
    public const int EBADFD = 77;

    /// <summary>A shared library is missing.</summary>
    public const int ELIBACC = 79;

    /// <summary>Message too long.</summary>
    public const int EMSGSIZE = 90;

    /// <summary>A timer expired.</summary>
    public const int ETIME = 62;

    /// <summary>Operation not supported on this object.</summary>
    public const int EOPNOTSUPP = 95;

    /// <summary>Address in use.</summary>
    public const int EADDRINUSE = 98;

    /// <summary>The other end reset the connection.</summary>
    public const int ECONNRESET = 104;

    /// <summary>No room for another.</summary>
    public const int ENOBUFS = 105;

    /// <summary>The socket is not connected.</summary>
    public const int ENOTCONN = 107;

    /// <summary>The time is over.</summary>
    public const int ETIMEDOUT = 110;

    /// <summary>Nobody listens.</summary>
    public const int ECONNREFUSED = 111;

    /// <summary>The socket is being connected.</summary>
    public const int EINPROGRESS = 115;

    /// <summary>The far side is shutting down.</summary>
    public const int ESHUTDOWN = 108;

    /// <summary>Disk quota exceeded.</summary>
    public const int EDQUOT = 122;
}
