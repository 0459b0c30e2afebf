namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// One change that is not durable yet. Offset and length are whole sectors; the content that is not of the write itself is what was there.
/// </summary>
/// <param name="offset">First byte.</param>
/// <param name="length">Bytes.</param>
/// <param name="data">What was written; null is zeros.</param>
/// <param name="end">Where the file ends at least once all of it is there; 0 when it does not grow the file.</param>
internal sealed class JournalEntry(ulong offset, ulong length, byte[]? data, ulong end)
{
    private List<(ulong From, ulong To)>? _overtaken;

    public ulong Offset { get; } = offset;

    public ulong Length { get; } = length;

    public ulong End { get; } = end;

    /// <summary>Who made it heard that it is done: a flush from now on has to keep it.</summary>
    public bool IsAcknowledged { get; set; }

    /// <summary>A flush failed that was for it: it may never be durable.</summary>
    public bool IsLost { get; set; }

    /// <summary>A later change of the range is durable: this one can never be seen there again.</summary>
    public void Overtake(JournalEntry later)
    {
        ulong from = Math.Max(Offset, later.Offset), to = Math.Min(Offset + Length, later.Offset + later.Length);
        if (from < to)
        {
            (_overtaken ??= []).Add((from, to));
        }
    }

    /// <summary>Puts a part of it, which is whole sectors, into a file.</summary>
    public void Apply(SparseBytes file, ulong from, ulong to)
    {
        if (_overtaken is null)
        {
            Put(file, from, to);
            return;
        }

        for (ulong at = from; at < to; at += WriteJournal.Sector)
        {
            if (!_overtaken.Exists(gone => at >= gone.From && at < gone.To))
            {
                Put(file, at, at + WriteJournal.Sector);
            }
        }
    }

    private void Put(SparseBytes file, ulong from, ulong to)
    {
        if (data is null)
        {
            file.Clear(from, to - from);
        }
        else
        {
            file.Write(data.AsSpan((int)(from - Offset), (int)(to - from)), from);
        }

        file.Length = Math.Max(file.Length, Math.Min(to, End));
    }
}

/// <summary>
/// What a disk with a volatile cache owes after a power cut: the changes that a flush covered, for sure; of the others any sectors, in any
/// order. Not thread-safe.
/// </summary>
/// <param name="durable">What is on stable storage.</param>
internal sealed class WriteJournal(SparseBytes durable)
{
    public const int Sector = 512;

    private readonly List<JournalEntry> _entries = [];

    /// <summary>What is on stable storage.</summary>
    public SparseBytes Durable => durable;

    /// <summary>Changes that are not.</summary>
    public int Count => _entries.Count;

    public void Add(JournalEntry entry) => _entries.Add(entry);

    /// <summary>What a flush that begins now has to make durable, and nothing more.</summary>
    public JournalEntry[] Acknowledged() => [.. _entries.Where(e => e.IsAcknowledged)];

    /// <summary>These are durable.</summary>
    public void Settle(ReadOnlySpan<JournalEntry> covered)
    {
        foreach (JournalEntry entry in covered)
        {
            int index = _entries.IndexOf(entry);
            if (index < 0)
            {
                continue; // an earlier flush did it
            }

            entry.Apply(durable, entry.Offset, entry.Offset + entry.Length);
            durable.Length = Math.Max(durable.Length, entry.End);
            for (int earlier = 0; earlier < index; earlier++)
            {
                _entries[earlier].Overtake(entry);
            }

            _entries.RemoveAt(index);
        }
    }

    /// <summary>
    /// The flush of these failed: some sectors are there, the others never will be, and the next flush does not know of them (as Linux
    /// does it: the pages are clean).
    /// </summary>
    public void Lose(ReadOnlySpan<JournalEntry> covered, Random random)
    {
        foreach (JournalEntry entry in covered)
        {
            if (_entries.Remove(entry))
            {
                entry.IsLost = true;
                Tear(entry, durable, random, keep: random.Next(3) / 2.0);
            }
        }
    }

    /// <summary>One of the contents that the file may have after a power cut.</summary>
    public SparseBytes Cut(Random random)
    {
        SparseBytes after = durable.Copy();
        JournalEntry[] order = [.. _entries];
        if (random.Next(2) == 0)
        {
            random.Shuffle(order);
        }

        bool torn = random.Next(3) > 0;
        double keep = random.Next(5) switch { 0 => 0, 1 => 1, 2 => 0.1, 3 => 0.9, _ => random.NextDouble() };
        foreach (JournalEntry entry in order)
        {
            if (torn && entry.Length > 0)
            {
                Tear(entry, after, random, keep);
            }
            else if (random.NextDouble() < keep)
            {
                entry.Apply(after, entry.Offset, entry.Offset + entry.Length);
                after.Length = Math.Max(after.Length, entry.End);
            }
        }

        return after;
    }

    // Runs of sectors are there or not; how long they are differs from entry to entry.
    private static void Tear(JournalEntry entry, SparseBytes file, Random random, double keep)
    {
        int longest = random.Next(4) switch { 0 => 1, 1 => 8, 2 => 64, _ => (int)Math.Min(entry.Length / Sector, 1 << 20) };
        longest = (int)Math.Max(Math.Max(longest, 1), (long)(entry.Length / Sector / 4096)); // gibibytes in some thousand runs
        for (ulong at = entry.Offset, end = entry.Offset + entry.Length; at < end;)
        {
            ulong to = Math.Min(end, at + ((ulong)random.Next(1, longest + 1) * Sector));
            if (random.NextDouble() < keep)
            {
                entry.Apply(file, at, to);
            }

            at = to;
        }
    }
}
