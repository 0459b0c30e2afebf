using Vmm.Io;

namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// An image file with a volatile cache: what was written is seen at once, and is sure to be there after a power cut only when a flush
/// covered it. A flush covers what was acknowledged when it began. Memory is what was touched, so files of GiB are small. Thread-safe:
/// nodes on any loops, blocking calls from any thread.
/// </summary>
/// <param name="content">What is in it, durable; null is an empty file.</param>
/// <param name="seed">Of what is random: delays, and what failures leave.</param>
/// <param name="canPunch">Whether space can be given back.</param>
internal sealed class CrashFile(SparseBytes? content = null, int seed = 1, bool canPunch = true, bool readOnly = false) : IImageFile
{
    private readonly Lock _gate = new();
    private readonly SparseBytes _volatile = content?.Copy() ?? new();
    private readonly WriteJournal _journal = new(content?.Copy() ?? new());
    private readonly FileFaults _faults = new();
    private readonly Random _random = new(seed);
    private bool _cut;

    public string Path { get; init; } = "crash.qcow2";

    /// <summary>Requests of nodes take some rounds of their loop, and overtake each other.</summary>
    public bool Delays { get; init; }

    /// <summary>A failed flush loses what it was for. Without it the next flush makes it durable.</summary>
    public bool FailedFlushLoses { get; init; } = true;

    public BlockGeometry Geometry { get; } = new(1ul << 62, WriteJournal.Sector, WriteJournal.Sector, readOnly,
        readOnly ? DiskAbilities.None : DiskAbilities.Discard | DiskAbilities.WriteZeroes);

    /// <summary>What the host says of its space.</summary>
    public bool HasSpace { get; set; } = true;

    public bool IsWritable => !readOnly;

    public ulong Length => Locked(() => _volatile.Length);

    /// <summary>Steps so far that changed something or made it durable.</summary>
    public int Changes => Locked(() => _faults.Changes);

    /// <summary>Steps that failed because they were told to.</summary>
    public int Struck => Locked(() => _faults.Struck);

    /// <inheritdoc cref="FileFaults.LostFlush"/>
    public bool LostFlush => Locked(() => _faults.LostFlush);

    /// <summary>The power went.</summary>
    public bool IsCut => Locked(() => _cut);

    internal bool CanPunch => canPunch;

    /// <summary>Decides which steps fail.</summary>
    public void Plan(Action<FileFaults> plan)
    {
        lock (_gate)
        {
            plan(_faults);
        }
    }

    /// <summary>What is in it as a reader sees it now.</summary>
    public SparseBytes Content() => Locked(_volatile.Copy);

    /// <summary>
    /// The power goes, or went: nothing can be done any more, and this is what the file may be afterwards. Each call is another outcome of
    /// the same cut.
    /// </summary>
    public SparseBytes CutPower(Random random)
    {
        lock (_gate)
        {
            _cut = true;
            return _journal.Cut(random);
        }
    }

    public IBlockNode CreateNode(IoLoop loop, int depth) => new CrashNode(this, loop, depth, Locked(_random.Next));

    public void Read(Span<byte> destination, ulong offset) => Check(TryRead(destination, offset), "cannot be read");

    public void Write(ReadOnlySpan<byte> bytes, ulong offset)
    {
        DiskStatus status = TryWrite(bytes, offset, out JournalEntry? entry);
        Acknowledge(entry);
        Check(status, "cannot be written");
    }

    public void Flush() => Check(TryFlush(BeginFlush()), "cannot be made stable; what was written last may be lost");

    public bool TryPunch(ulong offset, ulong length)
    {
        if (!canPunch)
        {
            return false;
        }

        DiskStatus status = TryZero(FileSteps.Punch, offset, length, grows: false, out JournalEntry? entry);
        Acknowledge(entry);
        Check(status, "cannot give space back");
        return true;
    }

    public void Grow(ulong length)
    {
        lock (_gate)
        {
            if (length > _volatile.Length)
            {
                Check(Begin(FileSteps.Grow), "cannot grow");
                _volatile.Length = length;
                _journal.Add(new JournalEntry(0, 0, null, length) { IsAcknowledged = true });
            }
        }
    }

    public void Dispose() { }

    internal DiskStatus TryRead(Span<byte> destination, ulong offset)
    {
        lock (_gate)
        {
            DiskStatus status = Begin(FileSteps.Read);
            if (status == DiskStatus.Ok)
            {
                _volatile.Read(destination, offset);
            }
            else
            {
                destination.Fill(0xee); // undefined
            }

            return status;
        }
    }

    /// <summary>Writes, or writes a part and fails; the entry to be acknowledged.</summary>
    internal DiskStatus TryWrite(ReadOnlySpan<byte> bytes, ulong offset, out JournalEntry? entry)
    {
        lock (_gate)
        {
            bool alive = !_cut;
            DiskStatus status = Begin(FileSteps.Write);
            entry = null;
            if (status != DiskStatus.Ok && alive)
            {
                bytes = bytes[..(_random.Next(bytes.Length + 1) / WriteJournal.Sector * WriteJournal.Sector)]; // a part may be there
            }

            if (alive && !bytes.IsEmpty)
            {
                _volatile.Write(bytes, offset);
                entry = Enter(offset, (ulong)bytes.Length, zeros: false, offset + (uint)bytes.Length);
            }

            return status;
        }
    }

    /// <summary>Makes a range zeros.</summary>
    internal DiskStatus TryZero(FileSteps step, ulong offset, ulong length, bool grows, out JournalEntry? entry)
    {
        lock (_gate)
        {
            bool alive = !_cut;
            DiskStatus status = Begin(step);
            entry = null;
            if (alive && length > 0 && (status == DiskStatus.Ok || _cut))
            {
                _volatile.Clear(offset, length);
                entry = Enter(offset, length, zeros: true, grows ? offset + length : 0);
            }

            return status;
        }
    }

    /// <summary>What a flush that begins now is for.</summary>
    internal JournalEntry[] BeginFlush() => Locked(_journal.Acknowledged);

    internal DiskStatus TryFlush(JournalEntry[] covered)
    {
        lock (_gate)
        {
            DiskStatus status = Begin(FileSteps.Flush);
            if (status == DiskStatus.Ok && Array.Exists(covered, entry => entry.IsLost))
            {
                return DiskStatus.IoError; // it began before another one failed, and is told of that as well
            }

            if (status == DiskStatus.Ok)
            {
                _journal.Settle(covered);
            }
            else if (!_cut && FailedFlushLoses)
            {
                _journal.Lose(covered, _random);
            }

            return status;
        }
    }

    internal void Acknowledge(JournalEntry? entry)
    {
        lock (_gate)
        {
            entry?.IsAcknowledged = true;
        }
    }

    // How the step ends. The one amid which the power goes has an effect that may be seen afterwards.
    private DiskStatus Begin(FileSteps step)
    {
        if (_cut)
        {
            return DiskStatus.IoError;
        }

        DiskStatus status = readOnly && step != FileSteps.Read && step != FileSteps.Flush
            ? DiskStatus.IoError
            : _faults.Next(step, out _cut);
        return status;
    }

    private JournalEntry Enter(ulong offset, ulong length, bool zeros, ulong end)
    {
        ulong from = offset - (offset % WriteJournal.Sector), skip = offset - from;
        ulong whole = (skip + length + WriteJournal.Sector - 1) / WriteJournal.Sector * WriteJournal.Sector;
        byte[]? data = null;
        if (!zeros || whole != length)
        {
            data = new byte[whole];
            _volatile.Read(data, from);
        }

        if (end > _volatile.Length)
        {
            _volatile.Length = end;
        }

        JournalEntry entry = new(from, whole, data, end);
        _journal.Add(entry);
        return entry;
    }

    private T Locked<T>(Func<T> get)
    {
        lock (_gate)
        {
            return get();
        }
    }

    private void Check(DiskStatus status, string what)
    {
        if (status != DiskStatus.Ok)
        {
            throw new BlockException(BlockErrorKind.Io, $"disk {Path} {what}") { Path = Path, Status = status };
        }
    }
}
