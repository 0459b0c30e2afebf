using Vmm.Interop;

namespace Vmm.Memory;

/// <summary>How pages are moved.</summary>
public sealed record PageMigrationOptions
{
    /// <summary>Most that is moved at once: so long a page that the guest wants can be on its way.</summary>
    public ByteSize Slice { get; init; } = ByteSize.MiB(8);

    /// <summary>Bytes a second on average; null is as fast as it goes.</summary>
    public ulong? BytesPerSecond { get; init; }

    /// <summary>How often pages are tried that cannot be moved at first: those that a device is reading or writing cannot.</summary>
    public int Attempts { get; init; } = 4;

    /// <summary>Pause before the second attempt; it doubles with every further one.</summary>
    public TimeSpan Pause { get; init; } = TimeSpan.FromMilliseconds(100);

    /// <summary>The clock that the rate is kept by.</summary>
    public TimeProvider Clock { get; init; } = TimeProvider.System;

    /// <summary>Waits, and comes back early when it is cancelled.</summary>
    public Action<TimeSpan, CancellationToken> Wait { get; init; } = (time, cancel) => cancel.WaitHandle.WaitOne(time);
}

/// <summary>What came of moving pages.</summary>
/// <param name="Cancelled">It was cancelled before everything was tried.</param>
/// <param name="Moved">What went to the wanted nodes.</param>
/// <param name="Left">What was found on another node and stayed there, by node; after a cancel only of what was looked at.</param>
/// <param name="Elapsed">How long it took.</param>
public sealed record PageMigrationResult(bool Cancelled, ByteSize Moved, IReadOnlyDictionary<int, ByteSize> Left, TimeSpan Elapsed)
{
    /// <summary>Sum of <see cref="Left"/>.</summary>
    public ByteSize LeftBytes => Left.Values.Aggregate(ByteSize.Zero, (sum, bytes) => sum + bytes);
}

/// <summary>
/// Moves the pages of some memories to host nodes, slice by slice, while their user goes on. A page on any of the nodes is where it should
/// be. It never fails half way for a page: what cannot be moved is left where it is, tried again, and told of.
/// </summary>
/// <param name="memories">What is moved.</param>
/// <param name="hostNodes">Where to, not empty.</param>
/// <param name="interleave">Spread pages over the nodes; else the first one takes all that fits, then the next.</param>
/// <param name="options">How.</param>
public sealed class PageMigration(
    IReadOnlyList<IMovablePages> memories, IReadOnlyList<int> hostNodes, bool interleave, PageMigrationOptions options)
{
    // EPERM, EACCES, EFAULT, ENODEV, EINVAL, ENOSYS: no page will ever go. Others (ENOMEM, EBUSY, ENOENT, EAGAIN, EIO) are about the pages
    // of the moment.
    private static readonly int[] s_hopeless = [1, 13, 14, 19, 22, 38];

    private static readonly TimeSpan s_longest = TimeSpan.FromMinutes(1);

    private readonly List<ulong> _pages = [];
    private readonly SortedDictionary<int, ByteSize> _left = [];
    private int[] _nodes = [], _after = [];
    private long _begin;
    private ulong _moved;

    /// <summary>Does it on the calling thread.</summary>
    /// <param name="progress">Takes how much was looked at (0 to 1) and how much was moved; null when nobody asks.</param>
    /// <param name="cancel">Stops it between two slices.</param>
    /// <exception cref="KernelException">The kernel moves no pages at all: no NUMA, no such node, not allowed.</exception>
    public PageMigrationResult Run(Action<double, ByteSize>? progress, CancellationToken cancel)
    {
        _begin = options.Clock.GetTimestamp();
        ulong total = Math.Max(1, memories.Aggregate(0UL, (sum, m) => sum + (m.Count * m.PageSize)));
        List<(IMovablePages Memory, ulong First, int Count)> slices = [.. memories.SelectMany(Slices)], again = [];
        TimeSpan pause = options.Pause;
        for (int attempt = 0; ; attempt++)
        {
            _left.Clear();
            ulong seen = 0;
            foreach ((IMovablePages memory, ulong first, int count) in slices)
            {
                if (cancel.IsCancellationRequested)
                {
                    return Result(cancelled: true);
                }

                if (MoveSlice(memory, first, count, attempt))
                {
                    again.Add((memory, first, count));
                }

                seen += (ulong)count * memory.PageSize;
                progress?.Invoke(attempt == 0 ? (double)seen / total : 1, new ByteSize(_moved));
                Throttle(cancel);
            }

            if (again.Count == 0 || attempt + 1 >= options.Attempts)
            {
                return Result(cancelled: false);
            }

            (slices, again) = (again, []);
            options.Wait(pause, cancel);
            pause *= 2;
        }
    }

    private PageMigrationResult Result(bool cancelled) =>
        new(cancelled, new ByteSize(_moved), new Dictionary<int, ByteSize>(_left), options.Clock.GetElapsedTime(_begin));

    private IEnumerable<(IMovablePages Memory, ulong First, int Count)> Slices(IMovablePages memory)
    {
        // A tenth of a second's worth at most, so that a low rate is no series of jolts.
        ulong bytes = Math.Min(options.Slice, Math.Max(256 * 1024, (options.BytesPerSecond ?? ulong.MaxValue) / 10));
        ulong pages = Math.Max(1, bytes / memory.PageSize);
        for (ulong first = 0; first < memory.Count; first += pages)
        {
            yield return (memory, first, (int)Math.Min(pages, memory.Count - first));
        }
    }

    /// <summary>True when pages are left that are not where they should be.</summary>
    private bool MoveSlice(IMovablePages memory, ulong first, int count, int attempt)
    {
        if (_nodes.Length < count)
        {
            (_nodes, _after) = (new int[count], new int[count]);
        }

        Span<int> nodes = _nodes.AsSpan(0, count), after = _after.AsSpan(0, count);
        memory.Locate(first, nodes);
        if (!AnyStray(nodes))
        {
            return false;
        }

        for (int k = 0; k < hostNodes.Count; k++)
        {
            _pages.Clear();
            for (int i = 0; i < count; i++)
            {
                // Which node a page is offered changes from attempt to attempt: one of them may be full.
                ulong choice = (interleave ? first + (ulong)i : 0) + (ulong)attempt;
                if (IsStray(nodes[i]) && (int)(choice % (ulong)hostNodes.Count) == k)
                {
                    _pages.Add(first + (ulong)i);
                }
            }

            if (_pages.Count > 0)
            {
                int errno = memory.Move(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_pages), hostNodes[k]);
                if (Array.IndexOf(s_hopeless, errno) >= 0)
                {
                    throw new KernelException($"move_pages to host node {hostNodes[k]}", errno);
                }
            }
        }

        memory.Locate(first, after);
        bool left = false;
        for (int i = 0; i < count; i++)
        {
            if (IsStray(after[i]))
            {
                left = true;
                _left[after[i]] = _left.GetValueOrDefault(after[i]) + new ByteSize(memory.PageSize);
            }
            else if (IsStray(nodes[i]) && after[i] >= 0) // one that is gone altogether was given back by the guest
            {
                _moved += memory.PageSize;
            }
        }

        return left;
    }

    private bool AnyStray(ReadOnlySpan<int> nodes)
    {
        foreach (int node in nodes)
        {
            if (IsStray(node))
            {
                return true;
            }
        }

        return false;
    }

    private bool IsStray(int node)
    {
        if (node < 0)
        {
            return false;
        }

        for (int i = 0; i < hostNodes.Count; i++)
        {
            if (hostNodes[i] == node)
            {
                return false;
            }
        }

        return true;
    }

    private void Throttle(CancellationToken cancel)
    {
        if (options.BytesPerSecond is { } rate && rate > 0)
        {
            TimeSpan due = TimeSpan.FromSeconds(_moved / (double)rate) - options.Clock.GetElapsedTime(_begin);
            if (due > TimeSpan.FromMilliseconds(1))
            {
                options.Wait(due < s_longest ? due : s_longest, cancel);
            }
        }
    }
}
