using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>libnbd is missing, or lacks a function.</summary>
public sealed class NbdUnavailableException(string message, Exception? cause = null) : Exception(message, cause);

/// <summary>
/// libnbd, the client of the Network Block Device protocol (libnbd(3)). It is opened at first use: who has no such disk does not need it.
/// All its functions are looked up then, so that nothing opens a file later.
/// </summary>
public static unsafe class NbdLibrary
{
    private const string File = "libnbd.so.0";
    private static readonly Lock s_gate = new();
    private static NbdFunctions? s_functions;

    /// <summary>The library is loaded: a process that may open no files any more can use it.</summary>
    public static bool IsLoaded => Volatile.Read(ref s_functions) is not null;

    /// <summary>Loads it, if nobody has. Any thread.</summary>
    /// <exception cref="NbdUnavailableException">It is not there; says what to install.</exception>
    public static void Load() => _ = Functions();

    internal static NbdFunctions Functions()
    {
        lock (s_gate)
        {
            return s_functions ??= Find();
        }
    }

    private static NbdFunctions Find()
    {
        if (!NativeLibrary.TryLoad(File, out nint library))
        {
            throw new NbdUnavailableException($"{File} is not installed: NBD disks need it; install the package libnbd0");
        }

        try
        {
            return new NbdFunctions(library);
        }
        catch (EntryPointNotFoundException cause)
        {
            throw new NbdUnavailableException($"{File} is too old for this program (1.12 or later is needed): {cause.Message}", cause);
        }
    }
}

/// <summary>struct nbd_completion_callback: how libnbd tells of the end of a command.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct NbdCallback
{
    internal delegate* unmanaged[Cdecl]<NbdSlot*, int*, int> Function;
    internal NbdSlot* Data;
    internal void* Free;
}

/// <summary>What a command in flight is known by: its callback gets the address.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct NbdSlot
{
    /// <summary>Where the number is written to when the command is over.</summary>
    internal NbdEnds* Ends;
    internal int Number;
    internal int Error;
}

/// <summary>Commands that are over and not taken yet: the first <see cref="Count"/> of a list behind it.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct NbdEnds
{
    internal int Count;
    internal int* Numbers;
}

/// <summary>The functions of libnbd that we call.</summary>
internal sealed unsafe class NbdFunctions(nint library)
{
    internal readonly delegate* unmanaged[Cdecl]<nint> Create = (delegate* unmanaged[Cdecl]<nint>)Of(library, "nbd_create");
    internal readonly delegate* unmanaged[Cdecl]<nint, void> Close = (delegate* unmanaged[Cdecl]<nint, void>)Of(library, "nbd_close");
    internal readonly delegate* unmanaged[Cdecl]<byte*> GetError = (delegate* unmanaged[Cdecl]<byte*>)Of(library, "nbd_get_error");
    internal readonly delegate* unmanaged[Cdecl]<int> GetErrno = (delegate* unmanaged[Cdecl]<int>)Of(library, "nbd_get_errno");

    internal readonly delegate* unmanaged[Cdecl]<nint, byte*, int> SetExportName = SetText(library, "nbd_set_export_name");
    internal readonly delegate* unmanaged[Cdecl]<nint, byte*, int> SetTlsCertificates = SetText(library, "nbd_set_tls_certificates");
    internal readonly delegate* unmanaged[Cdecl]<nint, byte*, int> SetTlsUsername = SetText(library, "nbd_set_tls_username");
    internal readonly delegate* unmanaged[Cdecl]<nint, byte*, int> SetTlsPskFile = SetText(library, "nbd_set_tls_psk_file");
    internal readonly delegate* unmanaged[Cdecl]<nint, int, int> SetTls = SetNumber(library, "nbd_set_tls");
    internal readonly delegate* unmanaged[Cdecl]<nint, int, int> SetTlsVerifyPeer = SetNumber(library, "nbd_set_tls_verify_peer");
    internal readonly delegate* unmanaged[Cdecl]<nint, int, int> SetStructuredReplies =
        SetNumber(library, "nbd_set_request_structured_replies");
    internal readonly delegate* unmanaged[Cdecl]<nint, int, int> SetPreadInitialize = SetNumber(library, "nbd_set_pread_initialize");
    internal readonly delegate* unmanaged[Cdecl]<nint, int, int> ConnectSocket = SetNumber(library, "nbd_aio_connect_socket");

    internal readonly delegate* unmanaged[Cdecl]<nint, int> SupportsTls = Ask(library, "nbd_supports_tls");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> GetFd = Ask(library, "nbd_aio_get_fd");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> GetDirection = Ask(library, "nbd_aio_get_direction");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> NotifyRead = Ask(library, "nbd_aio_notify_read");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> NotifyWrite = Ask(library, "nbd_aio_notify_write");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> IsConnecting = Ask(library, "nbd_aio_is_connecting");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> IsDead = Ask(library, "nbd_aio_is_dead");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> IsClosed = Ask(library, "nbd_aio_is_closed");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> IsReadOnly = Ask(library, "nbd_is_read_only");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> CanFlush = Ask(library, "nbd_can_flush");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> CanFua = Ask(library, "nbd_can_fua");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> CanTrim = Ask(library, "nbd_can_trim");
    internal readonly delegate* unmanaged[Cdecl]<nint, int> CanZero = Ask(library, "nbd_can_zero");

    internal readonly delegate* unmanaged[Cdecl]<nint, long> GetSize =
        (delegate* unmanaged[Cdecl]<nint, long>)Of(library, "nbd_get_size");
    internal readonly delegate* unmanaged[Cdecl]<nint, int, long> GetBlockSize =
        (delegate* unmanaged[Cdecl]<nint, int, long>)Of(library, "nbd_get_block_size");
    internal readonly delegate* unmanaged[Cdecl]<nint, uint, int> Disconnect =
        (delegate* unmanaged[Cdecl]<nint, uint, int>)Of(library, "nbd_aio_disconnect");

    internal readonly delegate* unmanaged[Cdecl]<nint, void*, nuint, ulong, NbdCallback, uint, long> Read =
        Transfer(library, "nbd_aio_pread");
    internal readonly delegate* unmanaged[Cdecl]<nint, void*, nuint, ulong, NbdCallback, uint, long> Write =
        Transfer(library, "nbd_aio_pwrite");

    internal readonly delegate* unmanaged[Cdecl]<nint, NbdCallback, uint, long> Flush =
        (delegate* unmanaged[Cdecl]<nint, NbdCallback, uint, long>)Of(library, "nbd_aio_flush");
    internal readonly delegate* unmanaged[Cdecl]<nint, ulong, ulong, NbdCallback, uint, long> Trim =
        (delegate* unmanaged[Cdecl]<nint, ulong, ulong, NbdCallback, uint, long>)Of(library, "nbd_aio_trim");
    internal readonly delegate* unmanaged[Cdecl]<nint, ulong, ulong, NbdCallback, uint, long> Zero =
        (delegate* unmanaged[Cdecl]<nint, ulong, ulong, NbdCallback, uint, long>)Of(library, "nbd_aio_zero");

    private static nint Of(nint library, string name) => NativeLibrary.GetExport(library, name);

    private static delegate* unmanaged[Cdecl]<nint, int> Ask(nint library, string name) =>
        (delegate* unmanaged[Cdecl]<nint, int>)Of(library, name);

    private static delegate* unmanaged[Cdecl]<nint, int, int> SetNumber(nint library, string name) =>
        (delegate* unmanaged[Cdecl]<nint, int, int>)Of(library, name);

    private static delegate* unmanaged[Cdecl]<nint, byte*, int> SetText(nint library, string name) =>
        (delegate* unmanaged[Cdecl]<nint, byte*, int>)Of(library, name);

    private static delegate* unmanaged[Cdecl]<nint, void*, nuint, ulong, NbdCallback, uint, long> Transfer(nint library, string name) =>
        (delegate* unmanaged[Cdecl]<nint, void*, nuint, ulong, NbdCallback, uint, long>)Of(library, name);
}
