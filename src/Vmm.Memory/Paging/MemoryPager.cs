using Vmm.Interop;

namespace Vmm.Memory.Paging;

/// <summary>What a pager is made of.</summary>
/// <param name="Device">/dev/userfaultfd, open.</param>
/// <param name="Store">Where pages go; the pager disposes it.</param>
/// <param name="Memories">The guest's memory, of pages of 4 KiB, for ever. Nobody has touched it through its mapping.</param>
/// <param name="Limit">Most bytes that are resident, at least <see cref="MemoryPager.Least"/>.</param>
/// <param name="Start">Starts a thread.</param>
/// <param name="Failed">Called once, with the reason, when pages cannot be had any more: the VM is to end.</param>
public sealed record PagerParts(
    FileDescriptorHandle Device,
    ISwapStore Store,
    IReadOnlyList<VnodeMemory> Memories,
    ByteSize Limit,
    Action<Thread> Start,
    Action<string> Failed)
{
    /// <summary>
    /// A limit without end, for a pager that is there for a restore only: when all pages came from the saved files it gives up the memory,
    /// which the kernel serves alone from then on.
    /// </summary>
    public static ByteSize Unlimited { get; } = new(1UL << 60);
}

/// <summary>
/// Keeps the resident memory of a guest below a limit: cold pages are staged, then written to the swap store, and come back when the guest
/// or a device wants them. Four threads: the responder (in C), two that bring pages in, and one that takes them out. With a saved VM behind
/// it pages come from there, too, and a fifth thread brings those that nobody wants yet.
/// </summary>
public sealed class MemoryPager : IMemoryPager, IDisposable
{
    private const ulong Work = ulong.MaxValue; // posted: look at the transfers that wait
    private const int RoomWaitMilliseconds = 5, MostRoomWaits = 40;
    private const ulong TrimBytes = 4 << 20; // at each wake-up, five a second when there is nothing else to do
    private const int JoinMilliseconds = 10_000, ReleaseMilliseconds = 1000;

    private readonly PagerParts _parts;
    private readonly Userfault _faults;
    private readonly ResidencyCache _pages;
    private readonly FaultResponder _responder;
    private readonly PageMover _mover;
    private readonly PageRelocator _relocator;
    private readonly PageReader _reader;
    private readonly PageEvicter _evicter;
    private readonly TransferPins _pins;
    private readonly RestorePins? _restorePins; // of one that is there for a restore only
    private readonly UserfaultMapper _mapper;
    private readonly PageRestorer _restorer;
    private readonly PagePrefetcher _prefetcher;
    private readonly List<Thread> _threads = [];
    private readonly object _room = new();
    private readonly Func<int> _freePages;
    private long _limit; // pages
    private Thread? _restoring;
    private int _failed;
    private int _serving; // threads that bring what somebody waits for
    private volatile bool _stopping, _ending, _retired;

    /// <param name="parts">What it is made of.</param>
    /// <exception cref="KernelException">The kernel refused; the store stays the caller's.</exception>
    /// <exception cref="ArgumentException">A memory is of huge pages, or the limit too low.</exception>
    public MemoryPager(PagerParts parts)
    {
        _parts = parts;
        if (parts.Memories.Any(memory => memory.PageSize != ByteSize.BytesPerPage) || parts.Limit < Least)
        {
            throw new ArgumentException($"Paging needs memory of 4 KiB pages and a limit of at least {Least}.", nameof(parts));
        }

        _faults = Userfault.Open(parts.Device);
        try
        {
            _pages = new ResidencyCache([.. parts.Memories.Select(memory => (memory.HostAddress, memory.Placement.Size.Pages))]);
            _responder = new FaultResponder(_faults, _pages.Board);
            _mapper = new UserfaultMapper(_faults, _pages, parts.Memories);
            SlotTable slots = new(_pages.Groups * ResidencyCache.GroupPages);
            _restorer = new PageRestorer(_pages, _mapper, parts.Store, slots);
            _mover = new PageMover(_pages, _mapper, parts.Store, slots, _restorer);
            _relocator = new PageRelocator(_pages, _mapper);
            _reader = new PageReader(_pages, _mapper, parts.Store, slots, _restorer);
            _evicter = new PageEvicter(_pages, _mover);
            _pins = new TransferPins(_pages, _mover, () => _responder.Post(Work));
            _restorePins = parts.Limit == PagerParts.Unlimited ? new RestorePins(_pins, _pages.Lanes) : null;
            _freePages = () => (int)Math.Clamp(Volatile.Read(ref _limit) - Volatile.Read(ref _pages.Board.Resident), 0, int.MaxValue);
            _prefetcher = new PagePrefetcher(_restorer, _freePages, () => Volatile.Read(ref _serving) > 0);
            SetLimit(parts.Limit);
            foreach (VnodeMemory memory in parts.Memories)
            {
                _faults.Register(memory.HostAddress, memory.Placement.Size);
            }
        }
        catch
        {
            _faults.Dispose();
            _responder?.Dispose();
            _pages?.Dispose();
            throw;
        }

        for (int i = 0; i < parts.Memories.Count; i++)
        {
            parts.Memories[i].Paging = new VnodePaging(_pages, i, _relocator, _reader);
        }

        _threads.Add(Begin("pager-faults", Answer));
        _threads.Add(Begin("pager-in-0", Bring));
        _threads.Add(Begin("pager-in-1", Bring));
        _threads.Add(Begin("pager-out", TakeOut));
    }

    /// <summary>The lowest limit.</summary>
    public static ByteSize Least { get; } = new(16UL << 20);

    /// <summary>From now on devices ask this pager for pages: before any of them has memory.</summary>
    public void Serve(GuestRam ram) => ram.Pages = (IPageSource?)_restorePins ?? _pins;

    /// <summary>The restore that its pages come from; null: they came from nowhere.</summary>
    public IMemoryRestore? Restoring => _restoring is null ? null : _prefetcher;

    /// <summary>From now on the content of the memory is that of saved files. Once, before anybody touches it.</summary>
    /// <param name="files">One for each memory, in its order; this object's from here on.</param>
    public void RestoreFrom(IReadOnlyList<ISavedPages> files)
    {
        for (int i = 0; i < files.Count; i++)
        {
            _restorer.Add(i, files[i]);
        }

        _restoring = Begin("pager-restore", Restore);
    }

    /// <summary>The guest runs: what it does not ask for comes, too.</summary>
    public void BeginPrefetch() => _prefetcher.Begin();

    /// <summary>Most bytes that are resident.</summary>
    public ByteSize ResidentLimit => new((ulong)Volatile.Read(ref _limit) * ByteSize.BytesPerPage);

    /// <summary>The lowest limit that can be had now: what transfers and rings use counts twice.</summary>
    public ByteSize MinimumLimit => new(Math.Max(Least.Bytes, 2 * (ulong)_pins.Pinned * ByteSize.BytesPerPage));

    /// <summary>Changes the limit. What is too much goes out as fast as the store takes it.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is below <see cref="MinimumLimit"/>.</exception>
    public void SetResidentLimit(ByteSize limit)
    {
        if (limit < MinimumLimit)
        {
            throw new ArgumentOutOfRangeException(
                nameof(limit), limit, $"A resident limit of {limit} is too low: {MinimumLimit} is the least now.");
        }

        SetLimit(limit);
        _evicter.Wake();
    }

    /// <summary>Where the pages are, and what was done.</summary>
    public PagerStatistics Statistics
    {
        get
        {
            const ulong Page = ByteSize.BytesPerPage;
            SwapStatistics store = _parts.Store.Statistics;
            return new PagerStatistics
            {
                LimitBytes = ResidentLimit.Bytes,
                ResidentBytes = Count(_pages.Board.Resident) * Page,
                StagedBytes = Count(_pages.Board.Staged) * Page,
                SwappedBytes = (store.Pages - Math.Min(store.Pages, Count(_mover.Kept))) * Page,
                PinnedBytes = Count(_pins.Pinned) * Page,
                PinnedPeakBytes = Count(_pins.Peak) * Page,
                Hits = Count(_pins.Hits),
                Misses = Count(_pins.Misses),
                BudgetWaits = Count(_pins.BudgetWaits),
                RefusedEvictions = Count(_mover.Refused),
                Faults = Count(_pages.Board.Faults),
                StagedFaults = Count(_pages.Board.StagedFaults),
                CopyFaults = Count(_pages.Board.CopyFaults),
                ForeignFaults = Count(_pages.Board.ForeignFaults),
                PagesOut = Count(_mover.PagesOut),
                PagesIn = Count(_mover.PagesIn),
                ZeroPages = Count(_mover.Zeros),
                UnchangedPages = Count(_mover.Unchanged),
                SwapFileBytes = store.FileBytes,
                Stopped = _evicter.Stopped,
            };
        }
    }

    /// <summary>
    /// Ends it; the guest does not run any more, and no device works. What is out is lost. The store is disposed.
    /// </summary>
    public void Dispose()
    {
        if (_stopping)
        {
            return;
        }

        _stopping = true;
        _prefetcher.Stop();
        bool ended = (_restoring is null || _restoring.Join(JoinMilliseconds)) & StopThreads();
        _faults.Dispose(); // who still waits for a page goes on with zeros: nobody looks at them
        foreach (VnodeMemory memory in _parts.Memories)
        {
            memory.Paging = null;
        }

        _parts.Store.Dispose();
        if (ended)
        {
            _restorer.LetGo();
            _prefetcher.Dispose();
            _evicter.Dispose();
            _responder.Dispose();
            _pages.Dispose();
        }
    }

    private static ulong Count(long value) => (ulong)Math.Max(0, Volatile.Read(ref value));

    private void SetLimit(ByteSize limit)
    {
        long pages = (long)(limit.Bytes / ByteSize.BytesPerPage);
        Volatile.Write(ref _limit, pages);
        _pins.Limit = pages;
        _evicter.Target = pages - PageEvicter.SlackOf(pages);
        Volatile.Write(ref _pages.Board.Ceiling, pages - (PageEvicter.SlackOf(pages) / 2));
    }

    private Thread Begin(string name, Action body)
    {
        Thread thread = new(() =>
        {
            try
            {
                body();
            }
#pragma warning disable CA1031 // The VM ends with a reason, whatever it is: a page that nobody brings would hang it.
            catch (Exception cause)
#pragma warning restore CA1031
            {
                Fail(cause is SavedPagesException ? cause.Message : $"guest memory cannot be paged any more: {cause.Message}");
            }
        }, maxStackSize: 256 * 1024)
        { Name = name, IsBackground = true };
        _parts.Start(thread);
        return thread;
    }

    private void Answer()
    {
        if (_responder.Serve() is not 0 and var errno)
        {
            Fail($"guest memory cannot be paged any more: {new KernelException("answering page faults", errno).Message}");
        }
    }

    private void Bring()
    {
        MoverRoom room = new();
        while (_responder.TryReadOther(out ulong page))
        {
            if (_restorer.Left == 0)
            {
                room.ForgetChunk();
            }

            if (page != Work)
            {
                FetchInto(page, room);
                continue;
            }

            _pins.Sweep();
            while (_pins.TakeWork() is { } transfer)
            {
                foreach (PinnedPages range in transfer.Ranges)
                {
                    for (ulong each = range.First; each < range.First + range.Count; each++)
                    {
                        if (!_pages.AreResident(each, 1))
                        {
                            FetchInto(each, room);
                        }
                    }
                }

                _pins.Tell(transfer);
            }
        }
    }

    private void FetchInto(ulong page, MoverRoom room)
    {
        Interlocked.Increment(ref _serving);
        try
        {
            if (_pages.StateOf(page) is PageState.Out or PageState.Empty or PageState.Saved)
            {
                WaitForRoom();
            }

            _mover.Fetch(page, room, _freePages);
        }
        finally
        {
            Interlocked.Decrement(ref _serving);
        }
    }

    private void Restore()
    {
        if (_prefetcher.Run())
        {
            if (_restorePins is { } pins)
            {
                Retire(pins);
            }

            _prefetcher.End();
        }
    }

    /// <summary>
    /// Gives up the memory: all of it is there, and may stay. The kernel serves faults first, and nobody who touches a page waits for a
    /// thread of this process any more; what looks at the states is right to do so until then.
    /// </summary>
    private void Retire(RestorePins pins)
    {
        _retired = true;
        _mapper.End();
        foreach (VnodeMemory memory in _parts.Memories)
        {
            _faults.Unregister(memory.HostAddress, memory.Placement.Size);
        }

        pins.End(() => _responder.Post(Work), () => _stopping);
        foreach (VnodeMemory memory in _parts.Memories)
        {
            memory.Paging = null;
        }

        if (!_stopping)
        {
            StopThreads();
        }
    }

    private bool StopThreads()
    {
        _ending = true;
        _evicter.Wake();
        _responder.Stop();
        _threads[0].Join(JoinMilliseconds);
        _threads[^1].Join(JoinMilliseconds); // it writes to the pipe
        _responder.EndOthers();
        return _threads.TrueForAll(thread => thread.Join(JoinMilliseconds));
    }

    /// <summary>
    /// Waits until a page fits below the limit. When nothing goes out (the store is full, everything is in use) the guest gets its page all
    /// the same: a limit that is exceeded is better than a guest that hangs.
    /// </summary>
    private void WaitForRoom()
    {
        for (int waits = 0; _freePages() == 0 && !_stopping; waits++)
        {
            if (_evicter.Stopped is not null || waits == MostRoomWaits)
            {
                return;
            }

            _evicter.Wake();
            lock (_room)
            {
                Monitor.Wait(_room, RoomWaitMilliseconds);
            }
        }
    }

    private void TakeOut()
    {
        MoverRoom room = new();
        while (!_ending)
        {
            _evicter.Wait();
            _responder.Post(Work); // transfers that were forgotten, or whose message found the pipe full
            _parts.Store.Trim(TrimBytes);
            while (!_ending && _evicter.Step(room))
            {
                lock (_room)
                {
                    Monitor.PulseAll(_room);
                }
            }
        }
    }

    /// <summary>
    /// The VM ends. No transfer gets pages any more. Whoever waits for a page is released after a while, with zeros: a vCPU that was told
    /// to stop does so instead of looking at them.
    /// </summary>
    private void Fail(string reason)
    {
        if (_stopping || _retired || Interlocked.Exchange(ref _failed, 1) != 0)
        {
            return;
        }

        _pins.Halt();
        _parts.Failed(reason);
        Thread.Sleep(ReleaseMilliseconds);
        foreach (VnodeMemory memory in _stopping ? [] : _parts.Memories)
        {
            _faults.Unregister(memory.HostAddress, memory.Placement.Size);
        }
    }
}
