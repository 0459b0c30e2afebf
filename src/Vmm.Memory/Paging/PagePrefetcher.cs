using System.Diagnostics;

namespace Vmm.Memory.Paging;

/// <summary>
/// Brings the pages of saved files that nobody waits for, until all are there; then the files are let go of. Who waits for a page goes
/// before: this stands back while somebody is served. One thread runs it.
/// </summary>
/// <param name="restorer">Brings pages.</param>
/// <param name="freePages">How many may come into memory now.</param>
/// <param name="isServing">Whether somebody is served now.</param>
internal sealed class PagePrefetcher(PageRestorer restorer, Func<int> freePages, Func<bool> isServing)
    : IMemoryRestore, IDisposable
{
    private const int MostYields = 2, IdleMilliseconds = 1, RetryMilliseconds = 250;
    private readonly ManualResetEventSlim _go = new(), _stop = new();
    private long _began, _took;

    /// <inheritdoc/>
    public Action<RestoreProgress>? Ended { get; set; }

    /// <inheritdoc/>
    public bool IsOver => Volatile.Read(ref _took) != 0;

    /// <inheritdoc/>
    public RestoreProgress Progress
    {
        get
        {
            const ulong Page = ByteSize.BytesPerPage;
            long began = Volatile.Read(ref _began), took = Volatile.Read(ref _took);
            TimeSpan time = began == 0 ? TimeSpan.Zero : took != 0 ? new TimeSpan(took) : Stopwatch.GetElapsedTime(began);
            return new RestoreProgress(
                (ulong)restorer.Total * Page, (ulong)Math.Max(0, restorer.Left) * Page, (ulong)restorer.Awaited * Page, time);
        }
    }

    /// <summary>The guest runs: it begins.</summary>
    internal void Begin()
    {
        Volatile.Write(ref _began, Stopwatch.GetTimestamp());
        _go.Set();
    }

    /// <summary>Ends it as soon as what it does now is done.</summary>
    internal void Stop()
    {
        _stop.Set();
        _go.Set();
    }

    /// <summary>Works until all pages are there.</summary>
    /// <returns>False: it was stopped.</returns>
    /// <exception cref="SavedPagesException">A file cannot give what is in it.</exception>
    internal bool Run()
    {
        MoverRoom room = new();
        _go.Wait();
        for (int at = 0; restorer.Left > 0 && !_stop.IsSet; at++)
        {
            for (int yields = 0; isServing() && yields < MostYields; yields++)
            {
                Thread.Sleep(IdleMilliseconds);
            }

            if (!restorer.TryNext(ref at, out ulong chunk))
            {
                Thread.Sleep(IdleMilliseconds); // others have the rest in their hands
            }
            else if (freePages() >= 2 * PageRestorer.ChunkPages)
            {
                restorer.Prefetch(chunk, room);
            }
            else if (!TryMoveOut(chunk, room))
            {
                _stop.Wait(RetryMilliseconds);
            }
        }

        if (_stop.IsSet)
        {
            return false;
        }

        restorer.LetGo();
        return true;
    }

    /// <summary>Nothing remains to be done: tells.</summary>
    internal void End()
    {
        Volatile.Write(ref _took, Math.Max(1, Stopwatch.GetElapsedTime(_began).Ticks));
        Ended?.Invoke(Progress);
    }

    /// <summary>After its thread ended.</summary>
    public void Dispose()
    {
        _go.Dispose();
        _stop.Dispose();
    }

    // A store that is full, or fails, is no reason to end: the pages are in the file as before.
    private bool TryMoveOut(ulong chunk, MoverRoom room)
    {
        try
        {
            restorer.MoveOut(chunk, room);
            return true;
        }
        catch (SwapStoreException)
        {
            return false;
        }
    }
}
