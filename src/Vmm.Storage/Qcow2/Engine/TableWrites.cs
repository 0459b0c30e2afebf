namespace Vmm.Storage.Qcow2;

/// <summary>
/// Tells a disk that reads an image's tables when another disk, which owns the image, writes them: what was read meanwhile may be half old
/// and half new, and is read again. The writer never waits. Any thread.
/// </summary>
internal sealed class TableWrites
{
    private long _steps; // odd while a table is being written

    /// <summary>What a read begins with.</summary>
    internal long Now => Volatile.Read(ref _steps);

    /// <summary>The owner begins to write, or has written. One thread.</summary>
    internal void Step() => Interlocked.Increment(ref _steps);

    /// <summary>Nothing was written since a read began with <paramref name="begin"/>.</summary>
    internal bool IsWhole(long begin) => begin % 2 == 0 && Interlocked.Read(ref _steps) == begin;
}
