using System.Diagnostics;
using System.Globalization;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Rbd;

/// <summary>
/// A disk that is an image of a Ceph cluster, through librbd. The library connects to all hosts of the cluster and has threads of its own:
/// this is for a process that does nothing else. One that is written is opened for this process alone.
/// </summary>
public sealed class RbdBackend : IDiskBackend
{
    private const int LogicalBlock = 512, PhysicalBlock = 4096;
    private const int LockPause = 500; // ms

    private readonly RadosCluster _cluster;
    private readonly RadosPool _pool;
    private bool _hasNode;

    private RbdBackend(RadosCluster cluster, RadosPool pool, RbdImage image, RbdOptions options)
    {
        (_cluster, _pool, Image, Name) = (cluster, pool, image, options.Name);
        ulong size = image.Size;
        if (size == 0 || size % LogicalBlock != 0)
        {
            throw Refused(options, BlockErrorKind.BadSize, $"the image has {size} bytes, which is not a whole number of sectors");
        }

        Geometry = new BlockGeometry(size, LogicalBlock, PhysicalBlock, options.ReadOnly,
            options.ReadOnly ? DiskAbilities.None : DiskAbilities.Discard | DiskAbilities.WriteZeroes);
    }

    /// <inheritdoc/>
    public BlockGeometry Geometry { get; }

    /// <summary>
    /// Called when the cluster lets this process write no more: another client broke its lock, since it took it for dead. On the loop's
    /// thread, before the request ends that heard of it.
    /// </summary>
    public Action? Fenced { get; set; }

    internal RbdImage Image { get; }

    /// <summary>Rings at ends of commands; the library has it for as long as the image is open.</summary>
    internal EventFd Bell { get; } = new();

    internal string Name { get; }

    /// <summary>Connects to the cluster, and opens the image. Waits for the cluster.</summary>
    /// <exception cref="BlockException">There is no librbd (says what to install), no such image, or it cannot be had.</exception>
    public static RbdBackend Open(RbdOptions options)
    {
        RadosCluster? cluster = null;
        RadosPool? pool = null;
        RbdImage? image = null;
        try
        {
            cluster = Connect(options);
            pool = Step(options, () => cluster.OpenPool(options.Pool, options.Namespace), errno => errno == Errno.ENOENT
                ? $"the cluster has no pool {options.Pool}" : $"pool {options.Pool} cannot be opened: {Why(errno, options)}");
            image = Step(options, () => pool.OpenImage(options.Image, options.ReadOnly), errno => errno == Errno.ENOENT
                ? $"there is no image {options.Image} in {Place(options)}"
                : $"image {options.Image} in {Place(options)} cannot be opened: {Why(errno, options)}");
            if (!options.ReadOnly)
            {
                Lock(image, options);
            }

            return new RbdBackend(cluster, pool, image, options);
        }
        catch (RbdUnavailableException missing)
        {
            throw Refused(options, BlockErrorKind.NotADisk, missing.Message, missing);
        }
        catch
        {
            image?.Dispose();
            pool?.Dispose();
            cluster?.Dispose();
            throw;
        }
    }

    /// <summary>Makes the node of the disk; there is one.</summary>
    /// <exception cref="InvalidOperationException">It has one already.</exception>
    /// <exception cref="BlockException">The library refused it.</exception>
    public IBlockNode CreateNode(IoLoop loop, int depth)
    {
        if (_hasNode)
        {
            throw new InvalidOperationException("An RBD disk has one node: its process serves one client.");
        }

        _hasNode = true;
        return new RbdNode(this, loop, depth);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Image.Dispose();
        _pool.Dispose();
        _cluster.Dispose();
        Bell.Dispose();
    }

    private static RadosCluster Connect(RbdOptions options)
    {
        RadosCluster cluster = new(options.User);
        try
        {
            Step(options, () => cluster.ReadConf(options.Conf), errno => $"its ceph.conf cannot be read: {Text(errno)}");
            cluster.Set("keyring", options.Keyring);
            cluster.Set("rbd_cache", options.WriteBack ? "true" : "false");
            cluster.Set("rbd_cache_writethrough_until_flush", "true");
            // Waiting for the cluster ends while a disk is opened; what a guest asked for waits as long as it takes.
            cluster.Set("client_mount_timeout", Seconds(30));
            cluster.Set("rados_mon_op_timeout", Seconds(30));
            // What the file says of these is for programs that may write there.
            cluster.Set("log_file", "");
            cluster.Set("admin_socket", "");
            Step(options, cluster.Connect, errno => errno == Errno.EIO
                ? $"its keyring cannot be read, or is none; client.{options.User} is looked for in it" : Why(errno, options));
            return cluster;
        }
        catch
        {
            cluster.Dispose();
            throw;
        }
    }

    private static string Seconds(int seconds) => seconds.ToString(CultureInfo.InvariantCulture);

    // Two machines that write one image destroy it: Ceph holds the second one off.
    private static void Lock(RbdImage image, RbdOptions options)
    {
        ulong features = Step(options, () => image.Features, Text);
        if ((features & RbdImage.ExclusiveLock) == 0)
        {
            throw Refused(options, BlockErrorKind.NotADisk, "the image lacks the feature exclusive-lock, without which two machines could "
                + $"write it at once: rbd feature enable {Place(options)}/{options.Image} exclusive-lock");
        }

        long began = Stopwatch.GetTimestamp();
        int errno;
        while ((errno = image.TryLock()) != 0)
        {
            if (Stopwatch.GetElapsedTime(began) > options.LockPatience)
            {
                string[] owners = [.. image.LockOwners()];
                throw Refused(options, BlockErrorKind.InUse, owners.Length == 0
                    ? $"the image cannot be locked: {Why(errno, options)}"
                    : $"the image is in use by another client ({string.Join(", ", owners)})");
            }

            Thread.Sleep(LockPause);
        }
    }

    private static void Step(RbdOptions options, Action step, Func<int, string> why) =>
        Step(options, () =>
        {
            step();
            return 0;
        }, why);

    private static T Step<T>(RbdOptions options, Func<T> step, Func<int, string> why)
    {
        try
        {
            return step();
        }
        catch (KernelException cause)
        {
            BlockErrorKind kind = cause.Errno switch
            {
                Errno.ENOENT => BlockErrorKind.NotFound,
                Errno.EACCES or Errno.EPERM => BlockErrorKind.AccessDenied,
                _ => BlockErrorKind.Io,
            };
            throw Refused(options, kind, why(cause.Errno), cause);
        }
    }

    private static string Place(RbdOptions options) =>
        options.Namespace.Length == 0 ? options.Pool : $"{options.Pool}/{options.Namespace}";

    private static string Why(int errno, RbdOptions options) => errno switch
    {
        Errno.ETIMEDOUT => "no monitor of the cluster answers within 30 s",
        Errno.EACCES => $"the cluster does not accept the key of client.{options.User}",
        Errno.EPERM => $"client.{options.User} may not do that; its capabilities say what it may",
        Errno.ENOENT => $"the keyring has no key of client.{options.User}",
        _ => Text(errno),
    };

    private static string Text(int errno) => System.Runtime.InteropServices.Marshal.GetPInvokeErrorMessage(errno);

    private static BlockException Refused(RbdOptions options, BlockErrorKind kind, string why, Exception? cause = null) =>
        new(kind, $"disk {options.Name}: {why}", cause) { Path = options.Name };
}
