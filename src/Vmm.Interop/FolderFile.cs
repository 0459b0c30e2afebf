using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>What a file is and whose, stat(2).</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly struct FileFacts
{
    private const uint TypeMask = 0xF000, Regular = 0x8000, Block = 0x6000, SocketType = 0xC000, Folder = 0x4000; // inode(7)

    /// <summary>File system.</summary>
    public ulong Device { get; init; }

    /// <summary>Number on it.</summary>
    public ulong Inode { get; init; }

    /// <summary>Names it has.</summary>
    public ulong Links { get; init; }

    /// <summary>Type and permissions.</summary>
    public uint Mode { get; init; }

    /// <summary>Owner.</summary>
    public uint UserId { get; init; }

    /// <summary>Group.</summary>
    public uint GroupId { get; init; }

    private uint Reserved { get; init; }

    /// <summary>A regular file.</summary>
    public bool IsRegular => (Mode & TypeMask) == Regular;

    /// <summary>A block device.</summary>
    public bool IsBlockDevice => (Mode & TypeMask) == Block;

    /// <summary>A unix socket.</summary>
    public bool IsSocket => (Mode & TypeMask) == SocketType;

    /// <summary>A directory.</summary>
    public bool IsDirectory => (Mode & TypeMask) == Folder;

    /// <summary>The facts of a path's last part itself, not of what a link there names.</summary>
    /// <returns>False when nothing can be seen there.</returns>
    public static bool TryOf(string path, out FileFacts facts)
    {
        facts = default;
        return CString.TryOf(path, out byte[] name) && Native.Facts(name, out facts) == 0;
    }
}

/// <summary>
/// A file that was found beneath a folder and held on to, without being opened: it is looked at first, and what was looked at is what is
/// opened.
/// </summary>
public sealed class FolderFile : IDisposable
{
    private readonly FileDescriptorHandle _at;
    private readonly string _name;

    private FolderFile(FileDescriptorHandle at, FileFacts facts, string name) => (_at, Facts, _name) = (at, facts, name);

    /// <summary>What it is.</summary>
    public FileFacts Facts { get; }

    /// <summary>A path to it that stays true whatever becomes of its name, as long as this is not disposed: proc(5),
    /// /proc/self/fd.</summary>
    public string HeldPath => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"/proc/self/fd/{_at.Number}");

    /// <summary>Finds a file, openat2(2).</summary>
    /// <param name="folder">The folder; its own path may have links.</param>
    /// <param name="path">The file's path from there.</param>
    /// <param name="confined">True: nothing on the way may lead out of the folder, neither <c>..</c> nor a link (EXDEV). False: links are
    /// followed, those of /proc are not.</param>
    /// <exception cref="KernelException">There is none, or the way leads out; the errno says which.</exception>
    public static FolderFile Find(string folder, string path, bool confined)
    {
        string name = Path.Combine(folder, path);
        nint fd = Native.OpenBeneath(CString.Of(folder), CString.Of(path), confined ? 1 : 0, out FileFacts facts, out int errno);
        return fd < 0 ? throw new KernelException($"open {name}", errno) : new FolderFile(new FileDescriptorHandle(fd), facts, name);
    }

    /// <summary>Opens it, close-on-exec.</summary>
    /// <param name="writable">Read and write, instead of read only.</param>
    /// <param name="exclusive">Of a block device: refuse one that the host has mounted or uses otherwise (EBUSY), and keep the host from
    /// doing so, open(2) on O_EXCL.</param>
    /// <exception cref="KernelException">It may not be opened.</exception>
    public FileDescriptorHandle Open(bool writable, bool exclusive)
    {
        nint fd = Native.Reopen(_at, writable ? 1 : 0, exclusive ? 1 : 0, out int errno);
        return fd < 0 ? throw new KernelException($"open {_name}", errno) : new FileDescriptorHandle(fd);
    }

    /// <inheritdoc/>
    public void Dispose() => _at.Dispose();
}
