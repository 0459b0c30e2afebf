using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>librbd or librados is missing, or lacks a function.</summary>
public sealed class RbdUnavailableException(string message, Exception? cause = null) : Exception(message, cause);

/// <summary>
/// librbd and librados, the client of Ceph's block devices (rbd/librbd.h, rados/librados.h). They are opened at first use: who has no such
/// disk does not need them. Reading and writing starts threads of theirs.
/// </summary>
public static class RbdLibrary
{
    private const string RbdFile = "librbd.so.1", RadosFile = "librados.so.2";
    private static readonly Lock s_gate = new();
    private static RbdFunctions? s_functions;

    /// <summary>Loads them, if nobody has. Any thread.</summary>
    /// <exception cref="RbdUnavailableException">One is not there; says what to install.</exception>
    public static void Load() => _ = Functions();

    internal static RbdFunctions Functions()
    {
        lock (s_gate)
        {
            return s_functions ??= Find();
        }
    }

    private static RbdFunctions Find()
    {
        if (!NativeLibrary.TryLoad(RbdFile, out nint rbd) || !NativeLibrary.TryLoad(RadosFile, out nint rados))
        {
            throw new RbdUnavailableException($"{RbdFile} is not installed: Ceph RBD disks need it; install the package librbd1");
        }

        try
        {
            return new RbdFunctions(rados, rbd);
        }
        catch (EntryPointNotFoundException cause)
        {
            throw new RbdUnavailableException(
                $"{RbdFile} is too old for this program (Ceph 16 or later is needed): {cause.Message}", cause);
        }
    }
}

/// <summary>The functions of librados and librbd that we call. A number below zero is -errno.</summary>
internal sealed unsafe class RbdFunctions(nint rados, nint rbd)
{
    internal readonly delegate* unmanaged[Cdecl]<nint*, byte*, byte*, ulong, int> Create =
        (delegate* unmanaged[Cdecl]<nint*, byte*, byte*, ulong, int>)Of(rados, "rados_create2");
    internal readonly delegate* unmanaged[Cdecl]<nint, byte*, int> ReadConf =
        (delegate* unmanaged[Cdecl]<nint, byte*, int>)Of(rados, "rados_conf_read_file");
    internal readonly delegate* unmanaged[Cdecl]<nint, byte*, byte*, int> SetConf =
        (delegate* unmanaged[Cdecl]<nint, byte*, byte*, int>)Of(rados, "rados_conf_set");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> Connect = (delegate* unmanaged[Cdecl]<nint, int>)Of(rados, "rados_connect");
    internal readonly delegate* unmanaged[Cdecl]<nint, void> Shutdown =
        (delegate* unmanaged[Cdecl]<nint, void>)Of(rados, "rados_shutdown");
    internal readonly delegate* unmanaged[Cdecl]<nint, byte*, nint*, int> OpenPool =
        (delegate* unmanaged[Cdecl]<nint, byte*, nint*, int>)Of(rados, "rados_ioctx_create");
    internal readonly delegate* unmanaged[Cdecl]<nint, byte*, void> SetNamespace =
        (delegate* unmanaged[Cdecl]<nint, byte*, void>)Of(rados, "rados_ioctx_set_namespace");
    internal readonly delegate* unmanaged[Cdecl]<nint, void> ClosePool =
        (delegate* unmanaged[Cdecl]<nint, void>)Of(rados, "rados_ioctx_destroy");

    internal readonly delegate* unmanaged[Cdecl]<nint, byte*, nint*, byte*, int> Open = OpenImage(rbd, "rbd_open");
    internal readonly delegate* unmanaged[Cdecl]<nint, byte*, nint*, byte*, int> OpenReadOnly = OpenImage(rbd, "rbd_open_read_only");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> Close = (delegate* unmanaged[Cdecl]<nint, int>)Of(rbd, "rbd_close");
    internal readonly delegate* unmanaged[Cdecl]<nint, ulong*, int> Size = Number(rbd, "rbd_get_size");
    internal readonly delegate* unmanaged[Cdecl]<nint, ulong*, int> Features = Number(rbd, "rbd_get_features");
    internal readonly delegate* unmanaged[Cdecl]<nint, int, int> AcquireLock =
        (delegate* unmanaged[Cdecl]<nint, int, int>)Of(rbd, "rbd_lock_acquire");
    internal readonly delegate* unmanaged[Cdecl]<nint, int*, byte**, nuint*, int> LockOwners =
        (delegate* unmanaged[Cdecl]<nint, int*, byte**, nuint*, int>)Of(rbd, "rbd_lock_get_owners");
    internal readonly delegate* unmanaged[Cdecl]<byte**, nuint, void> FreeLockOwners =
        (delegate* unmanaged[Cdecl]<byte**, nuint, void>)Of(rbd, "rbd_lock_get_owners_cleanup");

    internal readonly delegate* unmanaged[Cdecl]<nint, int, int, int> Notify =
        (delegate* unmanaged[Cdecl]<nint, int, int, int>)Of(rbd, "rbd_set_image_notification");
    internal readonly delegate* unmanaged[Cdecl]<nint, nint*, int, int> TakeEvents =
        (delegate* unmanaged[Cdecl]<nint, nint*, int, int>)Of(rbd, "rbd_poll_io_events");
    internal readonly delegate* unmanaged[Cdecl]<void*, void*, nint*, int> NewCompletion =
        (delegate* unmanaged[Cdecl]<void*, void*, nint*, int>)Of(rbd, "rbd_aio_create_completion");
    internal readonly delegate* unmanaged[Cdecl]<nint, nint> Result =
        (delegate* unmanaged[Cdecl]<nint, nint>)Of(rbd, "rbd_aio_get_return_value");
    internal readonly delegate* unmanaged[Cdecl]<nint, nint> Argument = (delegate* unmanaged[Cdecl]<nint, nint>)Of(rbd, "rbd_aio_get_arg");
    internal readonly delegate* unmanaged[Cdecl]<nint, void> Release = (delegate* unmanaged[Cdecl]<nint, void>)Of(rbd, "rbd_aio_release");

    internal readonly delegate* unmanaged[Cdecl]<nint, void*, int, ulong, nint, int> Read = Transfer(rbd, "rbd_aio_readv");
    internal readonly delegate* unmanaged[Cdecl]<nint, void*, int, ulong, nint, int> Write = Transfer(rbd, "rbd_aio_writev");
    internal readonly delegate* unmanaged[Cdecl]<nint, nint, int> Flush =
        (delegate* unmanaged[Cdecl]<nint, nint, int>)Of(rbd, "rbd_aio_flush");
    internal readonly delegate* unmanaged[Cdecl]<nint, ulong, ulong, nint, int> Discard =
        (delegate* unmanaged[Cdecl]<nint, ulong, ulong, nint, int>)Of(rbd, "rbd_aio_discard");
    internal readonly delegate* unmanaged[Cdecl]<nint, ulong, nuint, nint, int, int, int> WriteZeroes =
        (delegate* unmanaged[Cdecl]<nint, ulong, nuint, nint, int, int, int>)Of(rbd, "rbd_aio_write_zeroes");

    private static nint Of(nint library, string name) => NativeLibrary.GetExport(library, name);

    private static delegate* unmanaged[Cdecl]<nint, byte*, nint*, byte*, int> OpenImage(nint library, string name) =>
        (delegate* unmanaged[Cdecl]<nint, byte*, nint*, byte*, int>)Of(library, name);

    private static delegate* unmanaged[Cdecl]<nint, ulong*, int> Number(nint library, string name) =>
        (delegate* unmanaged[Cdecl]<nint, ulong*, int>)Of(library, name);

    private static delegate* unmanaged[Cdecl]<nint, void*, int, ulong, nint, int> Transfer(nint library, string name) =>
        (delegate* unmanaged[Cdecl]<nint, void*, int, ulong, nint, int>)Of(library, name);
}
