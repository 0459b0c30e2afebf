namespace Vmm.Machine.Saved;

/// <summary>The next range with data; false: there is none from there on.</summary>
internal delegate bool FindData(ulong from, out ulong start, out ulong end);

/// <summary>Ranges with data, asked for in ascending order, each looked up once. One thread.</summary>
/// <param name="next">Looks one up.</param>
internal sealed class DataRanges(FindData next)
{
    private ulong _start, _end;
    private bool _isOver;

    /// <summary>The range that holds the offset, from there on, or the next one.</summary>
    internal bool TryFind(ulong from, out ulong start, out ulong end)
    {
        if (!_isOver && from >= _end)
        {
            _isOver = !next(from, out _start, out _end);
        }

        (start, end) = (Math.Max(_start, from), _end);
        return !_isOver;
    }
}
