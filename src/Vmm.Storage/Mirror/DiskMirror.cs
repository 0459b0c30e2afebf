using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage;

/// <summary>How far a mirror is.</summary>
public enum MirrorState
{
    /// <summary>It stands before the source, and nothing goes to the target.</summary>
    Idle,

    /// <summary>The target gets what the source has, and what is written to the part that it has.</summary>
    Copying,

    /// <summary>The target has everything, on stable storage as far as it was flushed; every write and flush goes to both.</summary>
    Mirrored,

    /// <summary>
    /// As <see cref="Mirrored"/>, while somebody decides which of the two is the disk: a write that the target fails is not answered until
    /// then.
    /// </summary>
    Sealed,

    /// <summary>The target is the disk: whoever reads the source from now on reads what is old.</summary>
    Finished,

    /// <summary>Given up: the source is the disk, and nothing goes to the target any more.</summary>
    Ended,
}

/// <summary>What a mirror has done.</summary>
/// <param name="State">How far it is.</param>
/// <param name="CopiedBytes">Bytes of the disk, from its beginning, that the target got; what reads as zeros counts.</param>
/// <param name="Problem">Why the target is of no use; null as long as it is.</param>
/// <param name="Status">What kind of problem; <see cref="DiskStatus.Ok"/> without one.</param>
public readonly record struct MirrorReport(MirrorState State, ulong CopiedBytes, string? Problem, DiskStatus Status);

/// <summary>
/// Copies a disk to another one of the same size while it is used. It stands before both as one disk: reads go to the source; what is
/// written goes to the source, and to the target, too, where that was copied already. The source alone decides how a request of the disk
/// ends; a target that fails ends the copy. Copier and writers take turns at a range (<see cref="WriteRanges"/>), over all queues, and so
/// do writes that overlap: both disks see them in one order. Owns both disks. Any thread.
/// </summary>
public sealed class DiskMirror : IDiskBackend
{
    /// <summary>Bytes that are copied in one step: so long may a write that meets the copier wait.</summary>
    public const int ChunkBytes = 1 << 20;

    private readonly Lock _gate = new();
    private readonly IDiskBackend _source, _target;
    private readonly MirrorCopier _copier;
    private readonly List<EventFd> _waiting = []; // of nodes that have writes whose end is not decided
    private volatile MirrorState _state;
    private long _copyEnd, _copied; // the copier has taken, and finished, what lies before
    private volatile string? _problem;
    private DiskStatus _problemStatus;
    private bool _targetIsOurs = true, _sourceIsOurs = true, _nobodyWaits, _endsWithLast;
    private int _nodes;

    /// <summary>Makes the mirror, which does nothing yet.</summary>
    /// <param name="source">The disk; owned.</param>
    /// <param name="target">What becomes a copy of it; owned. Its content does not matter.</param>
    /// <param name="topOnly">
    /// Both are chains of images over the same images: what the source's top image does not have itself is left to those, and is not
    /// written. The target's top image has to be empty then.
    /// </param>
    /// <exception cref="BlockException">The target is of another size, has larger blocks, or cannot be written; or the two do not stand on
    /// the same images.</exception>
    public DiskMirror(IDiskBackend source, IDiskBackend target, bool topOnly = false) : this(source, target, topOnly ? 1 : null, topOnly)
    {
    }

    /// <summary>
    /// The same; with a bound the source is a chain, and the target its image of that number from the top, as a disk of its own: what is
    /// in it already, seen from the top, is not copied.
    /// </summary>
    internal DiskMirror(IDiskBackend source, IDiskBackend target, int? bound) : this(source, target, bound, sameBases: false)
    {
    }

    private DiskMirror(IDiskBackend source, IDiskBackend target, int? bound, bool sameBases)
    {
        MirrorFit.Check(source, target, sameBases);
        (_source, _target, Geometry) = (source, target, source.Geometry);
        _copier = new MirrorCopier(this, source, target, bound);
    }

    /// <summary>That of the source as it was at the beginning: neither disk grows meanwhile.</summary>
    public BlockGeometry Geometry { get; }

    /// <summary>How far it is.</summary>
    public MirrorReport Report
    {
        get
        {
            lock (_gate)
            {
                return new MirrorReport(_state, (ulong)_copied, _problem, _problem is null ? DiskStatus.Ok : _problemStatus);
            }
        }
    }

    /// <summary>Writes in flight of all queues and the copier, by range.</summary>
    internal WriteRanges Ranges { get; } = new();

    /// <summary>The target is of use.</summary>
    internal bool IsSound => _problem is null;

    /// <summary>The target is the disk.</summary>
    internal bool IsFinished => _state == MirrorState.Finished;

    /// <summary>Of the disk that counts: what the target lacks ends the copy, and fails no request.</summary>
    public bool HasSpace => Counts.HasSpace;

    /// <summary>Looks at the disk that counts; a growth is told once it stands before its front end again.</summary>
    /// <exception cref="BlockException">It cannot be looked at, or is smaller than before.</exception>
    public void Refresh() => Counts.Refresh();

    /// <inheritdoc/>
    public bool CanGoOn(DiskStatus fault) => Counts.CanGoOn(fault);

    private IDiskBackend Counts => IsFinished ? _target : _source;

    /// <inheritdoc/>
    public ulong DataFrom(ulong offset) => _source.DataFrom(offset);

    /// <inheritdoc/>
    public IBlockNode CreateNode(IoLoop loop, int depth)
    {
        lock (_gate)
        {
            _nobodyWaits = false;
            _nodes++;
        }

        IBlockNode? source = null;
        try
        {
            source = _source.CreateNode(loop, depth);
            return new MirrorNode(this, loop, new MirrorPair(this, source, _target.CreateNode(loop, depth)), depth);
        }
        catch
        {
            source?.Dispose();
            Left();
            throw;
        }
    }

    /// <summary>
    /// Begins to copy: every queue of the disk goes through this mirror by now. On a thread that <paramref name="run"/> starts.
    /// </summary>
    /// <param name="bytesPerSecond">Most bytes to copy in a second; 0 is no limit. Zeros cost nothing.</param>
    /// <param name="run">Starts the copier's thread; null: in the usual way.</param>
    /// <param name="ready">Called on that thread when it has made what it needs; null: nobody wants to know.</param>
    /// <exception cref="InvalidOperationException">It has begun.</exception>
    public void Start(ulong bytesPerSecond = 0, Action<Thread>? run = null, Action? ready = null)
    {
        Move(MirrorState.Copying);
        _copier.Start(bytesPerSecond, run ?? (static thread => thread.Start()), ready);
    }

    /// <summary>
    /// From now on somebody decides which of the two is the disk, <see cref="Finish"/> or <see cref="End"/>, and may write that down: each
    /// of them has all that was answered as done.
    /// </summary>
    /// <exception cref="BlockException">The target is of no use.</exception>
    /// <exception cref="InvalidOperationException">Not everything is copied.</exception>
    public void Seal()
    {
        lock (_gate)
        {
            ThrowIfUnsound();
            Move(MirrorState.Sealed);
        }
    }

    /// <summary>
    /// The target is the disk. No queue has anything in flight here, and each goes to the target itself before it goes on.
    /// </summary>
    /// <returns>The target, which is the caller's from now on.</returns>
    /// <exception cref="BlockException">The target is of no use: the source is the disk, and <see cref="End"/> is next.</exception>
    public IDiskBackend Finish()
    {
        lock (_gate)
        {
            ThrowIfUnsound();
            Move(MirrorState.Finished);
            _targetIsOurs = false;
            return _target;
        }
    }

    /// <summary>The source is the disk: nothing goes to the target any more, and what waited for that is answered. Waits for the
    /// copier.</summary>
    /// <returns>The source, which is the caller's from now on.</returns>
    public IDiskBackend End()
    {
        lock (_gate)
        {
            Move(MirrorState.Ended);
            _sourceIsOurs = false;
            RingAll();
        }

        _copier.Stop();
        return _source;
    }

    /// <summary>
    /// Nobody goes through it, though nodes may be there for a moment still: the source is the disk, and the caller's. It disposes itself,
    /// with the target, behind the last of them.
    /// </summary>
    public void Abandon()
    {
        End();
        lock (_gate)
        {
            _endsWithLast = _nodes > 0;
        }

        if (!_endsWithLast)
        {
            Dispose();
        }
    }

    /// <summary>
    /// The driver resets its device: what waits for a decision ends now, since nobody looks at the answer any more.
    /// </summary>
    public void ForgetAnswers()
    {
        lock (_gate)
        {
            _nobodyWaits = true;
            RingAll();
        }
    }

    /// <summary>
    /// Stops the copier, and closes the disks that are not the caller's by now. Their nodes are gone.
    /// </summary>
    public void Dispose()
    {
        Fail(DiskStatus.IoError, "the disk is gone"); // what is over by now does not mind
        _copier.Dispose();
        if (_targetIsOurs)
        {
            _target.Dispose();
        }

        if (_sourceIsOurs)
        {
            _source.Dispose();
        }
    }

    /// <summary>
    /// Whether a write goes to the target, too: asked while it has its range. What the copier takes later it need not.
    /// </summary>
    internal bool Mirrors(ulong begin) => (ulong)Volatile.Read(ref _copyEnd) > begin && IsSound && !IsOver;

    /// <summary>Flushes go to both.</summary>
    internal bool MirrorsFlushes => Volatile.Read(ref _copyEnd) == long.MaxValue && IsSound && !IsOver;

    /// <summary>The source alone answers for the disk again.</summary>
    private bool IsOver => _state is MirrorState.Ended;

    /// <summary>The copier is about to take its turn at the range before <paramref name="end"/>.</summary>
    internal void Reaches(ulong end) => Volatile.Write(ref _copyEnd, (long)end);

    /// <summary>The target has everything before <paramref name="end"/>.</summary>
    internal void Copied(ulong end)
    {
        lock (_gate)
        {
            _copied = (long)end;
        }
    }

    /// <summary>The copier has copied all; from now on the target has to be flushed with the source.</summary>
    internal void ReachesAll() => Volatile.Write(ref _copyEnd, long.MaxValue);

    /// <summary>Everything is on the target, flushed.</summary>
    internal void AllCopied()
    {
        lock (_gate)
        {
            if (_state == MirrorState.Copying && IsSound)
            {
                Move(MirrorState.Mirrored);
            }
        }
    }

    /// <summary>The target is of no use: the first reason stands.</summary>
    internal void Fail(DiskStatus status, string problem)
    {
        lock (_gate)
        {
            if (_problem is null)
            {
                _problemStatus = status;
                _problem = problem;
            }
        }
    }

    /// <summary>
    /// Whether a request that did not reach the target may be answered now. Otherwise <paramref name="node"/> is signalled once it may.
    /// </summary>
    internal bool MayAnswer(EventFd node)
    {
        if (_state != MirrorState.Sealed)
        {
            return true;
        }

        lock (_gate)
        {
            if (_state != MirrorState.Sealed || _nobodyWaits)
            {
                return true;
            }

            if (!_waiting.Contains(node))
            {
                _waiting.Add(node);
            }

            return false;
        }
    }

    /// <summary>A node is gone: nothing waits in it.</summary>
    internal void Forget(EventFd node)
    {
        lock (_gate)
        {
            _waiting.Remove(node);
        }
    }

    /// <summary>The disks' nodes of a node of this one are closed.</summary>
    internal void Left()
    {
        bool isOver;
        lock (_gate)
        {
            isOver = --_nodes == 0 && _endsWithLast;
        }

        if (isOver)
        {
            Dispose();
        }
    }

    // Under the lock.
    private void RingAll()
    {
        foreach (EventFd node in _waiting)
        {
            node.Signal();
        }
    }

    // The transition table.
    private static bool IsMove(MirrorState from, MirrorState to) => (from, to) switch
    {
        (MirrorState.Idle, MirrorState.Copying) => true,
        (MirrorState.Copying, MirrorState.Mirrored) => true,
        (MirrorState.Mirrored, MirrorState.Sealed) => true,
        (MirrorState.Sealed, MirrorState.Finished) => true,
        (MirrorState.Idle or MirrorState.Copying or MirrorState.Mirrored or MirrorState.Sealed, MirrorState.Ended) => true,
        _ => false,
    };

    private void Move(MirrorState to)
    {
        lock (_gate)
        {
            if (!IsMove(_state, to))
            {
                throw new InvalidOperationException($"A mirror that is {_state} cannot become {to}.");
            }

            _state = to;
        }
    }

    private void ThrowIfUnsound()
    {
        if (_problem is { } problem)
        {
            throw new BlockException(BlockErrorKind.Io, problem) { Status = _problemStatus };
        }
    }
}
