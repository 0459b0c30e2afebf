using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>
/// The first answer to page faults, in C (native-shim/pager.c says why): a thread that never runs managed code maps staged pages, zeroes
/// empty ones, and passes the others on.
/// </summary>
public sealed class FaultResponder : IDisposable
{
    private readonly PagerBoard _board;
    private readonly Userfault _faults;
    private readonly EventFd _stop = new();
    private readonly FileDescriptorHandle _others, _send;

    /// <param name="faults">Where they come from; ranges are registered by the caller.</param>
    /// <param name="board">The pages.</param>
    /// <exception cref="KernelException">Out of descriptors.</exception>
    public FaultResponder(Userfault faults, PagerBoard board)
    {
        ArgumentNullException.ThrowIfNull(faults);
        ArgumentNullException.ThrowIfNull(board);
        (_faults, _board) = (faults, board);
        (_others, _send) = EventCalls.Pipe();
        board.Connect(faults.Number, _stop.Handle.Number, _send.Number);
    }

    /// <summary>Answers faults on this thread until <see cref="Stop"/>.</summary>
    /// <returns>0, or the errno with which it had to give up.</returns>
    public int Serve()
    {
        int answer = Native.PagerServe(_board.Address);
        GC.KeepAlive(_faults);
        return -answer;
    }

    /// <summary>Waits for a page that somebody else has to bring. Any number of threads.</summary>
    /// <param name="page">Its number in the table, or what <see cref="Post"/> was given.</param>
    /// <returns>False after <see cref="EndOthers"/>.</returns>
    public bool TryReadOther(out ulong page) => EventCalls.ReadMessage(_others, out page) == sizeof(ulong);

    /// <summary>Gives a number to one of those who wait. Never blocks; with a full pipe it is dropped: they have enough to do.</summary>
    public void Post(ulong page) => _ = EventCalls.Write(_send, page);

    /// <summary>Ends <see cref="Serve"/>.</summary>
    public void Stop() => _stop.Signal();

    /// <summary>Ends <see cref="TryReadOther"/>; after <see cref="Serve"/> returned.</summary>
    public void EndOthers() => _send.Dispose();

    /// <summary>After the threads ended.</summary>
    public void Dispose()
    {
        _send.Dispose();
        _others.Dispose();
        _stop.Dispose();
    }
}
