namespace Vmm.Storage.Tests.Crash;

/// <summary>
/// What a sector may hold: everything that was written to it since what is known to be there. A value is a word that fills the sector; 0 is
/// zeros. Requests on one sector come one after the other.
/// </summary>
internal sealed class SectorHistory(ulong known)
{
    private const long Never = long.MaxValue;

    private readonly List<Change> _changes = [new(known, IsHint: false, 0)];

    /// <summary>Nothing can be there but one value.</summary>
    public bool IsSettled => _changes.Count == 1;

    /// <summary>A write or a discard (which may do nothing) is on its way.</summary>
    public void Submitted(ulong value, bool isHint) => _changes.Add(new(value, isHint, Never));

    /// <summary>The last one was acknowledged. What fails may have been done, or not.</summary>
    public void Acknowledged(long number) => _changes[^1] = _changes[^1] with { Acknowledged = number };

    /// <summary>Everything acknowledged up to that number is durable: what was overwritten before is gone.</summary>
    public void Durable(long number)
    {
        int last = _changes.FindLastIndex(c => !c.IsHint && c.Acknowledged <= number);
        if (last > 0)
        {
            _changes.RemoveRange(0, last);
        }
    }

    /// <summary>The disk was closed and said that what was written last may be lost: any of it may be seen, and no flush helps.</summary>
    public void Lost()
    {
        for (int i = 1; i < _changes.Count; i++)
        {
            _changes[i] = _changes[i] with { Acknowledged = Never };
        }
    }

    /// <summary>It was seen, with nothing in flight and nothing volatile.</summary>
    public void Settle(ulong value)
    {
        _changes.Clear();
        _changes.Add(new(value, IsHint: false, 0));
    }

    /// <summary>What a reader may see, while nothing is in flight here.</summary>
    public bool MayBeRead(ulong value) => Holds(value, _changes.FindLastIndex(c => !c.IsHint && c.Acknowledged != Never));

    /// <summary>What may be there after a power cut.</summary>
    public bool MayBeLeft(ulong value) => Holds(value, 0);

    public override string ToString() => string.Join(" then ", _changes.Select(c =>
        (c.IsHint ? "discard" : DiskModel.Name(c.Value)) + (c.Acknowledged == Never ? " (not acknowledged)" : "")));

    private bool Holds(ulong value, int from)
    {
        for (int i = from; i < _changes.Count; i++)
        {
            if (_changes[i].Value == value)
            {
                return true;
            }
        }

        return false;
    }

    private readonly record struct Change(ulong Value, bool IsHint, long Acknowledged);
}
