using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Vmm.Interop;

/// <summary>
/// One connection to an NBD server, by libnbd. It never waits: its owner polls <see cref="BorrowSocket"/> for what <see cref="Waits"/> says
/// and calls <see cref="Readable"/> and <see cref="Writable"/>. Commands have numbers, which <see cref="TryTakeEnd"/> gives back when they
/// are over. One thread at a time. Nothing managed is allocated for a command.
/// </summary>
public sealed unsafe class NbdConnection : SafeHandleZeroOrMinusOneIsInvalid
{
    private readonly NbdFunctions _nbd = NbdLibrary.Functions();
    private readonly NbdSlot* _slots;
    private readonly NbdEnds* _ends;
    private readonly int _depth;
    private SafeFileHandle? _socket;

    /// <summary>Makes a connection that is none yet.</summary>
    /// <param name="depth">Most commands in flight.</param>
    /// <param name="export">The export's name; empty is the server's default.</param>
    /// <param name="tls">TLS; null is none, and then the server is not asked whether it has it.</param>
    /// <exception cref="NbdUnavailableException">No libnbd, or one without TLS where it is asked for.</exception>
    /// <exception cref="KernelException">The library refused a setting.</exception>
    public NbdConnection(int depth, string export, NbdTls? tls) : base(ownsHandle: true)
    {
        _depth = depth;
        nint created = _nbd.Create();
        if (created == 0)
        {
            throw Failed("nbd_create");
        }

        SetHandle(created);
        nuint size = (nuint)(sizeof(NbdEnds) + (depth * (sizeof(NbdSlot) + sizeof(int))));
        _ends = (NbdEnds*)NativeMemory.AllocZeroed(size);
        _slots = (NbdSlot*)(_ends + 1);
        _ends->Numbers = (int*)(_slots + depth);
        for (int i = 0; i < depth; i++)
        {
            _slots[i] = new NbdSlot { Ends = _ends, Number = i };
        }

        try
        {
            // A structured reply may leave data out, and the library (1.14) does not look: the memory would keep what was in it. A simple
            // one is as long as what was asked for, so nothing has to be cleared before.
            Check(_nbd.SetStructuredReplies(handle, 0), "nbd_set_request_structured_replies");
            Check(_nbd.SetPreadInitialize(handle, 0), "nbd_set_pread_initialize");
            SetText(_nbd.SetExportName, export, "nbd_set_export_name");
            SetTls(tls);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Where it is.</summary>
    public NbdState State => _nbd.IsDead(handle) != 0 || _nbd.IsClosed(handle) != 0 ? NbdState.Over
        : _nbd.IsConnecting(handle) != 0 ? NbdState.Connecting : NbdState.Connected;

    /// <summary>What the socket is to be polled for.</summary>
    public PollEvents Waits
    {
        get
        {
            int direction = _nbd.GetDirection(handle);
            return ((direction & 1) != 0 ? PollEvents.Readable : 0) | ((direction & 2) != 0 ? PollEvents.Writable : 0);
        }
    }

    /// <summary>Begins to talk over a connected socket, which is the connection's from now on.</summary>
    /// <exception cref="KernelException">The library refused it.</exception>
    public void Begin(FileDescriptorHandle socket)
    {
        nint fd = socket.Detach();
        if (_nbd.ConnectSocket(handle, (int)fd) != 0)
        {
            throw Failed("nbd_aio_connect_socket"); // the library has closed it
        }
    }

    /// <summary>The socket, for polling; it stays the connection's.</summary>
    public SafeHandle BorrowSocket() => _socket ??= new SafeFileHandle(_nbd.GetFd(handle), ownsHandle: false);

    /// <summary>What the socket has of <see cref="Waits"/> at this moment.</summary>
    public PollEvents Look()
    {
        Span<PollEntry> one = [new PollEntry(_socket!, Waits)];
        return Poll.Wait(one, 0) > 0 ? one[0].Came : PollEvents.None;
    }

    /// <summary>The socket has something to read: nothing else may be the reason for this call.</summary>
    public void Readable()
    {
        if ((_nbd.GetDirection(handle) & 1) != 0)
        {
            Note(_nbd.NotifyRead(handle)); // what came of it, State and ends tell
        }
    }

    /// <summary>The socket takes more.</summary>
    public void Writable()
    {
        if ((_nbd.GetDirection(handle) & 2) != 0)
        {
            Note(_nbd.NotifyWrite(handle));
        }
    }

    /// <summary>What the server announced. Once it is connected.</summary>
    public NbdExport Export()
    {
        bool readOnly = _nbd.IsReadOnly(handle) != 0;
        return new NbdExport(_nbd.GetSize(handle), readOnly, _nbd.CanFlush(handle) > 0, _nbd.CanFua(handle) > 0,
            _nbd.CanTrim(handle) > 0, _nbd.CanZero(handle) > 0, Block(0), Block(1), Block(2));
    }

    /// <summary>
    /// Issues a command with the number <paramref name="slot"/>. The memory of a transfer stays until the command is over, or the
    /// connection is disposed. False when the library did not take it: no end comes.
    /// </summary>
    public bool TryIssue(NbdCommand command, int slot, nint memory, uint length, ulong offset, NbdFlags flags)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(slot);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(slot, _depth);
        NbdCallback end = new() { Function = &Ended, Data = _slots + slot };
        return command switch
        {
            NbdCommand.Read => _nbd.Read(handle, (void*)memory, length, offset, end, (uint)flags),
            NbdCommand.Write => _nbd.Write(handle, (void*)memory, length, offset, end, (uint)flags),
            NbdCommand.Flush => _nbd.Flush(handle, end, 0),
            NbdCommand.Trim => _nbd.Trim(handle, length, offset, end, (uint)flags),
            _ => _nbd.Zero(handle, length, offset, end, (uint)flags),
        } >= 0;
    }

    /// <summary>Takes a command that is over.</summary>
    /// <param name="slot">Its number.</param>
    /// <param name="error">0, or the error number that the server or the library gave it; ENOTCONN: the connection ended.</param>
    public bool TryTakeEnd(out int slot, out int error)
    {
        (slot, error) = (-1, 0);
        if (_ends->Count == 0)
        {
            return false;
        }

        slot = _ends->Numbers[--_ends->Count];
        error = _slots[slot].Error;
        return true;
    }

    /// <summary>Tells the server that this is the end; nothing is in flight.</summary>
    public void SayGoodbye() => _ = _nbd.Disconnect(handle, 0);

    /// <summary>What the library says of the end of the connection; null when it says nothing.</summary>
    public string? Failure { get; private set; }

    private string LastError => Encoding.UTF8.GetString(MemoryMarshal.CreateReadOnlySpanFromNullTerminated(_nbd.GetError()));

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        _nbd.Close(handle); // with the socket; no callback comes any more
        NativeMemory.Free(_ends);
        return true;
    }

    // Called by the library inside calls of ours. 1: the library forgets the command.
    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int Ended(NbdSlot* slot, int* error)
    {
        slot->Error = *error;
        slot->Ends->Numbers[slot->Ends->Count++] = slot->Number;
        return 1;
    }

    private long Block(int kind) => Math.Max(0, _nbd.GetBlockSize(handle, kind));

    private void SetTls(NbdTls? tls)
    {
        if (tls is null)
        {
            Check(_nbd.SetTls(handle, 0), "nbd_set_tls");
            return;
        }

        if (_nbd.SupportsTls(handle) <= 0)
        {
            throw new NbdUnavailableException("this libnbd was built without TLS");
        }

        if (tls is { PskFile: null, VerifyPeer: true })
        {
            // With a socket of somebody else it has no name to look for, and looks at nothing, the authority included (libnbd 1.14).
            throw new NbdUnavailableException("libnbd does not check the certificate of a server that it was connected to: use a "
                + "pre-shared key (psk), or say verify: false when nobody else can answer at this address");
        }

        Check(_nbd.SetTls(handle, 2 /* required */), "nbd_set_tls");
        Check(_nbd.SetTlsVerifyPeer(handle, tls.VerifyPeer ? 1 : 0), "nbd_set_tls_verify_peer");
        SetText(_nbd.SetTlsCertificates, tls.Certificates, "nbd_set_tls_certificates");
        SetText(_nbd.SetTlsPskFile, tls.PskFile, "nbd_set_tls_psk_file");
        SetText(_nbd.SetTlsUsername, tls.UserName, "nbd_set_tls_username");
    }

    private void SetText(delegate* unmanaged[Cdecl]<nint, byte*, int> set, string? value, string call)
    {
        if (value is null)
        {
            return;
        }

        fixed (byte* text = Encoding.UTF8.GetBytes(value + '\0'))
        {
            Check(set(handle, text), call);
        }
    }

    private void Note(int answer)
    {
        if (answer != 0)
        {
            Failure = LastError;
        }
    }

    private void Check(int answer, string call)
    {
        if (answer != 0)
        {
            throw Failed(call);
        }
    }

    private KernelException Failed(string call) => new($"{call} ({LastError})", _nbd.GetErrno());
}
