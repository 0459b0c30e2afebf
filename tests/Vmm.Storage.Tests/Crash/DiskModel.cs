using System.Runtime.InteropServices;

namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// What a disk has to hold. Each sector is filled with one word: which write it was, and of which sector; so that what is in the wrong
/// place says where it came from. Ranges of requests in flight do not overlap; sectors of one cluster may well be in flight at once.
/// Thread-safe.
/// </summary>
/// <param name="initial">The disk's content in the beginning, made of such sectors.</param>
internal sealed class DiskModel(SparseBytes initial)
{
    public const int Sector = 512;

    private readonly Lock _gate = new();
    private readonly Dictionary<ulong, SectorHistory> _sectors = [];
    private readonly HashSet<ulong> _open = []; // sectors with more than one possible content
    private readonly List<(ulong From, ulong To)> _inFlight = [];
    private long _acknowledged;
    private uint _stamps = 1000; // below: images made by qemu-img

    /// <summary>Bytes of the disk.</summary>
    public ulong Size => initial.Length;

    /// <summary>The word of a sector that write <paramref name="stamp"/> fills.</summary>
    public static ulong Word(uint stamp, ulong sector) => ((ulong)stamp << 32) | (uint)(sector + 1);

    /// <summary>A word, for people.</summary>
    public static string Name(ulong word) => word == 0 ? "zeros" : $"write {word >> 32} of sector {(uint)word - 1}";

    /// <summary>Fills the sectors of <paramref name="data"/> as one write does.</summary>
    public static void Fill(Span<byte> data, ulong sector, uint stamp)
    {
        Span<ulong> words = MemoryMarshal.Cast<byte, ulong>(data);
        for (int at = 0; at < words.Length; at += Sector / 8)
        {
            words.Slice(at, Sector / 8).Fill(Word(stamp, sector++));
        }
    }

    public uint NextStamp() => Interlocked.Increment(ref _stamps);

    /// <summary>Takes a range for a request; false when another request in flight has a part of it.</summary>
    public bool TryEnter(ulong offset, ulong length)
    {
        lock (_gate)
        {
            if (_inFlight.Exists(r => offset < r.To && r.From < offset + length))
            {
                return false;
            }

            _inFlight.Add((offset, offset + length));
            return true;
        }
    }

    /// <summary>The request on the range is over.</summary>
    public void Leave(ulong offset, ulong length)
    {
        lock (_gate)
        {
            _inFlight.Remove((offset, offset + length));
        }
    }

    /// <summary>Before a write (with its stamp), zeroing (0) or discard is submitted.</summary>
    public void Submitted(BlockKind kind, ulong offset, ulong length, uint stamp)
    {
        lock (_gate)
        {
            for (ulong sector = offset / Sector; sector < (offset + length) / Sector; sector++)
            {
                History(sector).Submitted(stamp == 0 ? 0 : Word(stamp, sector), kind == BlockKind.Discard);
                _open.Add(sector);
            }
        }
    }

    /// <summary>It was acknowledged; with <paramref name="fua"/> it is durable.</summary>
    public void Acknowledged(ulong offset, ulong length, bool fua)
    {
        lock (_gate)
        {
            long number = ++_acknowledged;
            for (ulong sector = offset / Sector; sector < (offset + length) / Sector; sector++)
            {
                SectorHistory history = _sectors[sector];
                history.Acknowledged(number);
                if (fua)
                {
                    history.Durable(number);
                }
            }
        }
    }

    /// <summary>A flush begins: up to where it has to make things durable.</summary>
    public long FlushBegins()
    {
        lock (_gate)
        {
            return _acknowledged;
        }
    }

    /// <summary>It succeeded.</summary>
    public void FlushEnded(long covers)
    {
        lock (_gate)
        {
            foreach (ulong sector in _open)
            {
                _sectors[sector].Durable(covers);
            }

            _open.RemoveWhere(sector => _sectors[sector].IsSettled);
        }
    }

    /// <summary>The disk was closed, and said that it could not make everything durable.</summary>
    public void Lost()
    {
        lock (_gate)
        {
            foreach (ulong sector in _open)
            {
                _sectors[sector].Lost();
            }
        }
    }

    /// <summary>What is wrong with what was read while nothing else was in flight in the range; null when nothing is.</summary>
    public string? WrongToRead(ReadOnlySpan<byte> data, ulong offset) => Wrong(data, offset, (history, word) => history.MayBeRead(word));

    /// <summary>What is wrong with what a power cut left; null when nothing is.</summary>
    public string? WrongToBeLeft(ReadOnlySpan<byte> data, ulong offset) => Wrong(data, offset, (history, word) => history.MayBeLeft(word));

    /// <summary>The range is what was read, and durable: nothing was in flight or volatile.</summary>
    public void Settle(ReadOnlySpan<byte> data, ulong offset)
    {
        lock (_gate)
        {
            ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(data);
            for (int at = 0; at < words.Length; at += Sector / 8)
            {
                ulong sector = (offset / Sector) + (ulong)(at / (Sector / 8));
                if (_open.Remove(sector))
                {
                    _sectors[sector].Settle(words[at]);
                }
            }
        }
    }

    private string? Wrong(ReadOnlySpan<byte> data, ulong offset, Func<SectorHistory, ulong, bool> may)
    {
        lock (_gate)
        {
            ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(data);
            for (ulong sector = offset / Sector; !words.IsEmpty; sector++)
            {
                ReadOnlySpan<ulong> there = words[..(Sector / 8)];
                words = words[there.Length..];
                bool known = _sectors.TryGetValue(sector, out SectorHistory? history);
                bool right = known ? may(history!, there[0]) : there[0] == Initial(sector);
                int other = there.IndexOfAnyExcept(there[0]);
                if (!right || other >= 0)
                {
                    string rest = other < 0 ? "" : $" up to byte {other * 8}, then {Name(there[other])}";
                    return $"sector {sector} is {Name(there[0])}{rest}, and has to be {history?.ToString() ?? Name(Initial(sector))}";
                }
            }

            return null;
        }
    }

    private SectorHistory History(ulong sector)
    {
        if (!_sectors.TryGetValue(sector, out SectorHistory? history))
        {
            _sectors.Add(sector, history = new SectorHistory(Initial(sector)));
        }

        return history;
    }

    private ulong Initial(ulong sector)
    {
        Span<byte> word = stackalloc byte[8];
        initial.Read(word, sector * Sector);
        return MemoryMarshal.Read<ulong>(word);
    }
}
