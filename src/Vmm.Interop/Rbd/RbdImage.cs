using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Vmm.Interop;

/// <summary>What a command to an image does.</summary>
public enum RbdCommand
{
    /// <summary>Reads into memory.</summary>
    Read,

    /// <summary>Writes memory.</summary>
    Write,

    /// <summary>Makes stable what was answered before.</summary>
    Flush,

    /// <summary>The content of a range is no longer needed.</summary>
    Discard,

    /// <summary>A range reads as zeros; its space may be given back.</summary>
    Zero,

    /// <summary>A range reads as zeros, which take space.</summary>
    ZeroThick,
}

/// <summary>
/// An open image of a Ceph cluster (rbd/librbd.h). Commands have numbers, which <see cref="TakeEnds"/> gives back when they are over; a
/// bell rings then. One thread at a time. Disposed before its pool, when nothing is in flight.
/// </summary>
public sealed unsafe class RbdImage : SafeHandleZeroOrMinusOneIsInvalid
{
    /// <summary>The feature that lets one client only write (RBD_FEATURE_EXCLUSIVE_LOCK).</summary>
    public const ulong ExclusiveLock = 4;

    private const int EventFdType = 2; // EVENT_TYPE_EVENTFD
    private const int ThickZeroes = 1; // RBD_WRITE_ZEROES_FLAG_THICK_PROVISION
    private const int MostEnds = 64, MostOwners = 8;

    private readonly RbdFunctions _rbd = RbdLibrary.Functions();

    internal RbdImage(nint image) : base(ownsHandle: true) => SetHandle(image);

    /// <summary>Bytes.</summary>
    /// <exception cref="KernelException">The cluster does not say.</exception>
    public ulong Size => Ask(_rbd.Size, "rbd_get_size");

    /// <summary>What it was made with (RBD_FEATURE_*).</summary>
    /// <exception cref="KernelException">The cluster does not say.</exception>
    public ulong Features => Ask(_rbd.Features, "rbd_get_features");

    /// <summary>
    /// Takes the image for this client alone, until it is closed: nobody else writes, and nobody is given the lock who asks for it. That of
    /// a client that is gone is broken, and that client can write no more.
    /// </summary>
    /// <returns>0, or the error number: EROFS or EBUSY when a client has it that is there.</returns>
    public int TryLock() => -Math.Min(0, _rbd.AcquireLock(handle, 0 /* RBD_LOCK_MODE_EXCLUSIVE */));

    /// <summary>Who has the lock, as Ceph names them: the address of a client, perhaps with its number.</summary>
    public IReadOnlyList<string> LockOwners()
    {
        int mode;
        nuint count = MostOwners;
        byte** owners = stackalloc byte*[MostOwners];
        if (_rbd.LockOwners(handle, &mode, owners, &count) < 0)
        {
            return [];
        }

        List<string> names = [];
        for (nuint i = 0; i < count; i++)
        {
            names.Add(Marshal.PtrToStringUTF8((nint)owners[i]) ?? "");
        }

        _rbd.FreeLockOwners(owners, count);
        return names;
    }

    /// <summary>Rings a bell whenever a command is over. Before the first one is issued; the bell outlives the image.</summary>
    /// <exception cref="KernelException">The library refused it.</exception>
    public void RingAtEnds(EventFd bell) =>
        KernelException.ThrowIfError(_rbd.Notify(handle, bell.Handle.Number, EventFdType), "rbd_set_image_notification");

    /// <summary>
    /// Issues a command with a number of the caller's. The memory of a transfer, and its vectors, stay until it is over.
    /// </summary>
    /// <returns>0, or -errno: the library did not take it, and no end comes.</returns>
    public int TryIssue(RbdCommand command, int number, nint vectors, int count, ulong offset, ulong length)
    {
        nint completion;
        int answer = _rbd.NewCompletion((void*)number, null, &completion);
        if (answer < 0)
        {
            return answer;
        }

        answer = command switch
        {
            RbdCommand.Read => _rbd.Read(handle, (void*)vectors, count, offset, completion),
            RbdCommand.Write => _rbd.Write(handle, (void*)vectors, count, offset, completion),
            RbdCommand.Flush => _rbd.Flush(handle, completion),
            RbdCommand.Discard => _rbd.Discard(handle, offset, length, completion),
            RbdCommand.Zero => _rbd.WriteZeroes(handle, offset, (nuint)length, completion, 0, 0),
            _ => _rbd.WriteZeroes(handle, offset, (nuint)length, completion, ThickZeroes, 0),
        };
        if (answer < 0)
        {
            _rbd.Release(completion);
        }

        return Math.Min(answer, 0);
    }

    /// <summary>Takes commands that are over: their numbers, and bytes read, 0, or -errno.</summary>
    /// <returns>How many; as many as there is room for when there may be more.</returns>
    public int TakeEnds(Span<(int Number, long Result)> ends)
    {
        nint* completions = stackalloc nint[MostEnds];
        int count = Math.Max(0, _rbd.TakeEvents(handle, completions, Math.Min(ends.Length, MostEnds)));
        for (int i = 0; i < count; i++)
        {
            ends[i] = ((int)_rbd.Argument(completions[i]), _rbd.Result(completions[i]));
            _rbd.Release(completions[i]);
        }

        return count;
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => _rbd.Close(handle) >= 0;

    private ulong Ask(delegate* unmanaged[Cdecl]<nint, ulong*, int> ask, string call)
    {
        ulong number;
        KernelException.ThrowIfError(ask(handle, &number), call);
        return number;
    }
}
