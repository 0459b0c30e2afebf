using System.Diagnostics;
using Vmm.Interop;

namespace Vmm.Storage.Nbd;

/// <summary>
/// The commands of one connection: a request is one command at a time, and has the number of its slot. A command of the library has one
/// piece of memory: long vectors are given to it as they are, many short ones go through a buffer together. Belongs to the disk's thread.
/// </summary>
internal sealed class NbdCommands : IDisposable
{
    /// <summary>Most commands in flight; more requests wait.</summary>
    internal const int Depth = 128;

    private const int BufferBytes = 1 << 20, Buffers = 16;
    private const uint DirectFrom = 256 << 10;

    private readonly BounceBuffers _buffers = new(4096, BufferBytes, Buffers);
    private readonly BlockRequest?[] _requests = new BlockRequest?[Depth];
    private readonly long[] _began = new long[Depth]; // ticks of Stopwatch
    private readonly long[] _order = new long[Depth];
    private readonly int[] _free = new int[Depth];
    private int _freeCount;
    private long _nextOrder;

    internal NbdCommands()
    {
        for (int i = Depth - 1; i >= 0; i--)
        {
            _free[_freeCount++] = i;
        }
    }

    /// <summary>How a command could be begun.</summary>
    internal enum Start
    {
        /// <summary>The server has it, or will.</summary>
        Issued,

        /// <summary>All slots or all buffers are in use.</summary>
        NoRoom,

        /// <summary>The library did not take it.</summary>
        Refused,
    }

    /// <summary>Commands in flight.</summary>
    internal int InFlight => Depth - _freeCount;

    /// <summary>A request begins, or begins again: nothing of it is done.</summary>
    internal static void Begin(BlockRequest request, NbdShape shape)
    {
        ref RawProgress r = ref request.Progress;
        r.Operation = request.Kind switch
        {
            BlockKind.Read => RawOperation.Read,
            BlockKind.Write => RawOperation.Write,
            BlockKind.Discard => RawOperation.Discard,
            BlockKind.WriteZeroes => !shape.CanZero ? RawOperation.ZeroByWriting
                : (request.Flags & BlockFlags.MayUnmap) != 0 ? RawOperation.ZeroByPunch : RawOperation.ZeroRange,
            _ => RawOperation.Flush,
        };
        r.Offset = request.Offset;
        r.Remaining = request.Length;
        r.Vector = 0;
        r.VectorDone = 0;
        r.SyncAfter = (request.Flags & BlockFlags.Fua) != 0 && shape.CanFlush && !shape.CanFua;
        r.Ticket = -1;
        r.Buffer = -1;
        r.Status = DiskStatus.Ok;
        r.Losses = 0;
    }

    /// <summary>Issues the next command of a request.</summary>
    internal Start TryIssue(NbdConnection connection, BlockRequest request, NbdShape shape)
    {
        ref RawProgress r = ref request.Progress;
        nint memory = 0;
        uint length = r.Operation == RawOperation.Flush ? 0 : (uint)Math.Min(r.Remaining, NbdShape.MostRange);
        if (_freeCount == 0 || (r.Transfers && !TakePiece(request, shape, out memory, out length)))
        {
            return Start.NoRoom;
        }

        int slot = _free[--_freeCount];
        r.PieceLength = length;
        (NbdCommand command, NbdFlags flags) = r.Operation switch
        {
            RawOperation.Read => (NbdCommand.Read, NbdFlags.None),
            RawOperation.Flush => (NbdCommand.Flush, NbdFlags.None),
            RawOperation.Discard => (NbdCommand.Trim, NbdFlags.None),
            RawOperation.ZeroRange => (NbdCommand.Zero, NbdFlags.NoHole),
            RawOperation.ZeroByPunch => (NbdCommand.Zero, NbdFlags.None),
            _ => (NbdCommand.Write, NbdFlags.None),
        };
        if (command is NbdCommand.Write or NbdCommand.Zero && (request.Flags & BlockFlags.Fua) != 0 && shape.CanFua)
        {
            flags |= NbdFlags.Fua;
        }

        if (!connection.TryIssue(command, slot, memory, length, r.Offset, flags))
        {
            _free[_freeCount++] = slot;
            ReturnBuffer(ref r);
            return Start.Refused;
        }

        _requests[slot] = request;
        _began[slot] = Stopwatch.GetTimestamp();
        _order[slot] = _nextOrder++;
        return Start.Issued;
    }

    /// <summary>
    /// A command is over: its request, with what it moved, and whether there is more of it to do. Its buffer comes back.
    /// </summary>
    internal BlockRequest End(int slot, int error, out bool hasMore)
    {
        BlockRequest request = _requests[slot]!;
        _requests[slot] = null;
        _free[_freeCount++] = slot;
        ref RawProgress r = ref request.Progress;
        if (error == 0 && r.Operation != RawOperation.Flush)
        {
            uint length = r.PieceLength;
            if (r.Buffer >= 0 && r.Operation == RawOperation.Read)
            {
                r.CopyFrom(request.Vectors, _buffers.Bytes(r.Buffer)[..(int)length]);
            }

            if (r.Transfers)
            {
                r.Skip(request.Vectors, length);
            }
            else
            {
                r.Offset += length;
                r.Remaining -= length;
            }
        }

        ReturnBuffer(ref r);
        hasMore = error == 0 && r.Operation != RawOperation.Flush && r.Remaining > 0;
        if (error == 0 && !hasMore && r.SyncAfter)
        {
            r.SyncAfter = false;
            r.Operation = RawOperation.Flush;
            hasMore = true;
        }

        return request;
    }

    /// <summary>
    /// The connection is gone and nothing touches its memory any more: the requests of all commands, in the order in which they were
    /// issued, begin again.
    /// </summary>
    internal RequestList TakeAll(NbdShape shape)
    {
        RequestList all = default;
        while (InFlight > 0)
        {
            int first = -1;
            for (int i = 0; i < Depth; i++)
            {
                first = _requests[i] is not null && (first < 0 || _order[i] < _order[first]) ? i : first;
            }

            BlockRequest request = _requests[first]!;
            _requests[first] = null;
            _free[_freeCount++] = first;
            ReturnBuffer(ref request.Progress);
            Restart(request, shape);
            all.Add(request);
        }

        return all;
    }

    /// <summary>What a request did on a connection that is gone does not count: it begins again.</summary>
    internal static void Restart(BlockRequest request, NbdShape shape)
    {
        (long covers, int losses) = (request.Progress.Covers, request.Progress.Losses);
        Begin(request, shape);
        (request.Progress.Covers, request.Progress.Losses) = (covers, losses);
    }

    /// <summary>A command waits longer than this for its answer.</summary>
    internal bool IsAnyOlderThan(TimeSpan time)
    {
        long now = Stopwatch.GetTimestamp();
        for (int i = 0; i < Depth && InFlight > 0; i++)
        {
            if (_requests[i] is not null && Stopwatch.GetElapsedTime(_began[i], now) > time)
            {
                return true;
            }
        }

        return false;
    }

    public void Dispose() => _buffers.Dispose();

    // The memory of the next command: of one vector, or a buffer for what lies in several.
    private bool TakePiece(BlockRequest request, NbdShape shape, out nint memory, out uint length)
    {
        ref RawProgress r = ref request.Progress;
        (memory, length) = (0, 0);
        if (r.Operation != RawOperation.ZeroByWriting)
        {
            ReadOnlySpan<IoVector> vectors = request.Vectors;
            while (r.Vector < vectors.Length && vectors[r.Vector].Length == r.VectorDone)
            {
                (r.Vector, r.VectorDone) = (r.Vector + 1, 0); // an empty one
            }

            uint rest = (uint)Math.Min(Math.Min(vectors[r.Vector].Length - r.VectorDone, r.Remaining), shape.Payload);
            uint whole = rest / shape.Block * shape.Block;
            if (whole == r.Remaining || whole >= Math.Min(DirectFrom, shape.Payload))
            {
                (memory, length) = (vectors[r.Vector].Base + (nint)r.VectorDone, whole);
                return true;
            }
        }

        r.Buffer = _buffers.Take();
        if (r.Buffer < 0)
        {
            return false;
        }

        length = (uint)Math.Min(r.Remaining, Math.Min(BufferBytes, shape.Payload));
        memory = _buffers.Address(r.Buffer);
        if (r.Operation != RawOperation.Read)
        {
            r.CopyTo(request.Vectors, _buffers.Bytes(r.Buffer)[..(int)length]);
        }

        return true;
    }

    private void ReturnBuffer(ref RawProgress r)
    {
        if (r.Buffer >= 0)
        {
            _buffers.Return(r.Buffer);
            r.Buffer = -1;
        }
    }
}
