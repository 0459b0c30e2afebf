using Microsoft.Win32.SafeHandles;

namespace Vmm.Interop;

/// <summary>
/// A connection to a Ceph cluster (rados/librados.h): to all its monitors and OSDs, by threads of the library. Calls wait for the cluster.
/// </summary>
public sealed unsafe class RadosCluster : SafeHandleZeroOrMinusOneIsInvalid
{
    private readonly RbdFunctions _ceph = RbdLibrary.Functions();

    /// <summary>Makes a connection that is none yet.</summary>
    /// <param name="client">Who connects, without <c>client.</c> before it.</param>
    /// <exception cref="RbdUnavailableException">No librbd.</exception>
    /// <exception cref="KernelException">Out of memory.</exception>
    public RadosCluster(string client) : base(ownsHandle: true)
    {
        nint made;
        fixed (byte* cluster = "ceph\0"u8, name = CString.Of("client." + client))
        {
            KernelException.ThrowIfError(_ceph.Create(&made, cluster, name, 0), "rados_create2");
        }

        SetHandle(made);
    }

    /// <summary>Takes the settings of a ceph.conf.</summary>
    /// <exception cref="KernelException">It cannot be read, or is none.</exception>
    public void ReadConf(string path)
    {
        fixed (byte* text = CString.Of(path))
        {
            KernelException.ThrowIfError(_ceph.ReadConf(handle, text), "rados_conf_read_file");
        }
    }

    /// <summary>Changes a setting, before the connection is made.</summary>
    /// <exception cref="KernelException">There is none of that name, or it takes no such value.</exception>
    public void Set(string setting, string value)
    {
        fixed (byte* name = CString.Of(setting), text = CString.Of(value))
        {
            KernelException.ThrowIfError(_ceph.SetConf(handle, name, text), $"rados_conf_set {setting}");
        }
    }

    /// <summary>Connects.</summary>
    /// <exception cref="KernelException">ETIMEDOUT: no monitor answers; EACCES, EPERM or ENOENT: the key is not the user's.</exception>
    public void Connect() => KernelException.ThrowIfError(_ceph.Connect(handle), "rados_connect");

    /// <summary>Opens a pool.</summary>
    /// <exception cref="KernelException">ENOENT: there is none; EPERM: the user may not.</exception>
    public RadosPool OpenPool(string name, string nameSpace)
    {
        nint pool;
        fixed (byte* text = CString.Of(name))
        {
            KernelException.ThrowIfError(_ceph.OpenPool(handle, text, &pool), "rados_ioctx_create");
        }

        fixed (byte* text = CString.Of(nameSpace))
        {
            _ceph.SetNamespace(pool, text);
        }

        return new RadosPool(pool);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        _ceph.Shutdown(handle);
        return true;
    }
}

/// <summary>A pool of a cluster, or a namespace in it. Disposed before the cluster.</summary>
public sealed unsafe class RadosPool : SafeHandleZeroOrMinusOneIsInvalid
{
    private readonly RbdFunctions _ceph = RbdLibrary.Functions();

    internal RadosPool(nint pool) : base(ownsHandle: true) => SetHandle(pool);

    /// <summary>Opens an image.</summary>
    /// <exception cref="KernelException">ENOENT: there is none; EPERM: the user may not.</exception>
    public RbdImage OpenImage(string name, bool readOnly)
    {
        nint image;
        fixed (byte* text = CString.Of(name))
        {
            KernelException.ThrowIfError(
                readOnly ? _ceph.OpenReadOnly(handle, text, &image, null) : _ceph.Open(handle, text, &image, null), "rbd_open");
        }

        return new RbdImage(image);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        _ceph.ClosePool(handle);
        return true;
    }
}
