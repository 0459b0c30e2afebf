namespace Vmm.Memory;

/// <summary>
/// The only place that changes which guest addresses are memory: it numbers the slots of the hypervisor, and tells the listeners of
/// <see cref="GuestRam.Listeners"/> in phases what is RAM for devices. A slot and RAM for devices are two things: memory that the guest
/// gave back is no RAM for devices any more, but its slot stays, because taking a slot away stops every vCPU. Any thread; changes of RAM
/// take turns, and never make a change of slots wait.
/// </summary>
public sealed class MemoryMapOwner
{
    /// <summary>Most bytes of one slot. KVM takes 2^31 - 1 pages (KVM_MEM_MAX_NR_PAGES); a power of two keeps huge pages whole.</summary>
    public const ulong MostSlotBytes = 4UL << 40;

    private const ulong MappingPage = 2 << 20;

    private readonly Lock _changes = new(); // of RAM, with the calls of listeners; before the other
    private readonly Lock _table = new();   // of slots
    private readonly GuestRam _ram;
    private readonly IMemorySlots _slots;
    private readonly List<MemorySlot?> _numbers = []; // by slot number
    private bool _logs; // the slots of RAM, also those that come; under the table's lock

    /// <summary>Takes RAM over and makes its regions reachable for the guest, in slots from 0 up.</summary>
    /// <exception cref="Interop.KernelException">The kernel refused a slot.</exception>
    public MemoryMapOwner(GuestRam ram, IMemorySlots slots)
    {
        _ram = ram;
        _slots = slots;
        foreach (ref readonly GuestRegion region in ram.RegionSpan)
        {
            AddSlots(region, MemorySlotKind.Ram, isReadOnly: false);
        }
    }

    /// <summary>Whether pages may go back to the host.</summary>
    public DiscardPolicy Discards => _ram.Discards;

    /// <inheritdoc cref="GuestRam.GiveBack"/>
    public int GiveBack(in GuestRegion region, out ulong given) => _ram.GiveBack(region, out given);

    /// <summary>The slots now, by number.</summary>
    public IReadOnlyList<MemorySlot> Slots
    {
        get
        {
            lock (_table)
            {
                return [.. from slot in _numbers where slot is not null select slot.Value];
            }
        }
    }

    /// <summary>Lets the guest reach memory that can become RAM. Devices see it after <see cref="AddRam"/>.</summary>
    /// <exception cref="ArgumentException">It overlaps another slot.</exception>
    /// <exception cref="Interop.KernelException">The kernel refused: out of slots or memory.</exception>
    public void AddRamSlot(in GuestRegion region)
    {
        lock (_table)
        {
            AddSlots(region, MemorySlotKind.Ram, isReadOnly: false);
        }
    }

    /// <summary>Makes a region RAM for devices. It lies in RAM slots.</summary>
    /// <exception cref="ArgumentException">Part of it is RAM already, or in no slot.</exception>
    public void AddRam(in GuestRegion region)
    {
        lock (_changes)
        {
            CheckSlotted(region);
            GuestRegion[] regions = RamRegions.With(_ram.RegionSpan, region);
            _ram.Listeners.TellAdding(region);
            _ram.ReplaceRegions(regions);
            _ram.Listeners.TellAdded(region);
        }
    }

    /// <summary>Ends a range as RAM for devices. The guest still reaches its slots. On return no device accesses it any more.</summary>
    /// <param name="start">First guest address.</param>
    /// <param name="length">Bytes, all of them RAM of one region.</param>
    /// <exception cref="ArgumentException">Not all of it is RAM of one region.</exception>
    public void RemoveRam(GuestAddress start, ByteSize length)
    {
        lock (_changes)
        {
            GuestRegion[] regions = RamRegions.Without(_ram.RegionSpan, start, length, out GuestRegion removed);
            CheckSlotted(removed); // and not a mapping
            _ram.Listeners.TellRemoving(removed);
            _ram.ReplaceRegions(regions);
            _ram.Listeners.TellRemoved(removed);
        }
    }

    /// <summary>
    /// Lets the guest reach memory of a device (a BAR that shows memory of this process). Devices transfer to it and from it as with RAM (a
    /// guest that maps persistent memory reads a disk right into it), and only from it when it is read-only. Its pages are nothing for a
    /// balloon.
    /// </summary>
    /// <param name="region">Where, and what; whole pages. The memory stays mapped until no device works any more.</param>
    /// <param name="isReadOnly">Guest writes come as exits.</param>
    /// <exception cref="ArgumentException">It overlaps another slot.</exception>
    /// <exception cref="Interop.KernelException">The kernel refused.</exception>
    public void AddMapping(in GuestRegion region, bool isReadOnly)
    {
        // Pages of a size that Discard leaves alone.
        GuestRegion mapping = new(region.Start, region.Length, region.HostAddress, region.Vnode, MappingPage, isReadOnly);
        lock (_changes)
        {
            lock (_table)
            {
                AddSlots(mapping, MemorySlotKind.Mapping, isReadOnly);
            }

            ShowMapping(mapping);
        }
    }

    /// <summary>
    /// Writes down from now on which pages of RAM are written, by the guest and by devices; clean at first. Slots that come later are
    /// logged, too. Nothing changes when it does so already.
    /// </summary>
    /// <exception cref="Interop.KernelException">The kernel refused: nothing is written down then.</exception>
    public void StartDirtyLog()
    {
        lock (_table)
        {
            if (_logs)
            {
                return;
            }

            _ram.StartTrackingWrites();
            try
            {
                ChangeLogs(isLogged: true);
                _logs = true;
            }
            catch
            {
                StopLogs();
                throw;
            }
        }
    }

    /// <summary>Ends <see cref="StartDirtyLog"/>; what was written down is forgotten.</summary>
    public void StopDirtyLog()
    {
        lock (_table)
        {
            _logs = false;
            StopLogs();
        }
    }

    /// <summary>
    /// Takes the pages of a slot that were written since the last time, whoever wrote them. Read the pages after this call, never before. A
    /// lease that is held marks its pages when it ends.
    /// </summary>
    /// <param name="slot">A slot of RAM that is there.</param>
    /// <param name="bitmap">Bit N is page N of the slot (4 KiB); at least as many bits as pages.</param>
    /// <exception cref="InvalidOperationException">The slot is not there, or nothing is written down.</exception>
    /// <exception cref="ArgumentException">The bitmap is too small.</exception>
    public void TakeDirty(in MemorySlot slot, Span<ulong> bitmap)
    {
        ulong pages = slot.Region.Length.Pages;
        if (pages > (ulong)bitmap.Length * 64)
        {
            throw new ArgumentException($"Slot {slot.Number} has {pages} pages, the bitmap {bitmap.Length * 64L}.", nameof(bitmap));
        }

        lock (_table)
        {
            if (slot.Number >= _numbers.Count || _numbers[(int)slot.Number] is not { IsLogged: true } now
                || now.Region.Start.Value != slot.Region.Start.Value || now.Region.Length != slot.Region.Length)
            {
                throw new InvalidOperationException(
                    $"Slot {slot.Number} at {slot.Region.Start} is not there, or has no log of what is written.");
            }

            bitmap.Clear();
            _slots.TakeLog(now, bitmap);
            _ram.CollectWrittenPages(now.Region.Start, pages, bitmap);
        }
    }

    private void ChangeLogs(bool isLogged)
    {
        for (int number = 0; number < _numbers.Count; number++)
        {
            if (_numbers[number] is { Kind: MemorySlotKind.Ram } slot && slot.IsLogged != isLogged)
            {
                MemorySlot changed = slot with { IsLogged = isLogged };
                _slots.ChangeLog(changed);
                _numbers[number] = changed;
            }
        }
    }

    private void StopLogs()
    {
        ChangeLogs(isLogged: false);
        _ram.StopTrackingWrites();
    }

    private void ShowMapping(in GuestRegion mapping)
    {
        try
        {
            GuestRegion[] regions = RamRegions.With(_ram.RegionSpan, mapping);
            _ram.Listeners.TellAdding(mapping);
            _ram.ReplaceRegions(regions);
            _ram.Listeners.TellAdded(mapping);
        }
        catch
        {
            GuestAddress start = mapping.Start;
            lock (_table)
            {
                Remove(FindMapping(start));
            }

            throw;
        }
    }

    private int FindMapping(GuestAddress start) => _numbers.FindIndex(
        slot => slot is { Kind: MemorySlotKind.Mapping } found && found.Region.Start.Value == start.Value);

    /// <summary>
    /// Takes what <see cref="AddMapping"/> added away again: on return the guest does not reach it. Nothing happens where there is none. A
    /// transfer that is under way ends in the memory of the device, which stays.
    /// </summary>
    public void RemoveMapping(GuestAddress start)
    {
        lock (_changes)
        {
            MemorySlot mapping;
            int number;
            lock (_table)
            {
                number = FindMapping(start);
                if (number < 0)
                {
                    return;
                }

                mapping = _numbers[number]!.Value;
            }

            GuestRegion[] regions = RamRegions.Without(_ram.RegionSpan, start, mapping.Region.Length, out GuestRegion removed);
            _ram.Listeners.TellRemoving(removed);
            _ram.ReplaceRegions(regions);
            _ram.Listeners.TellRemoved(removed);

            lock (_table)
            {
                Remove(number);
            }
        }
    }

    private void AddSlots(in GuestRegion region, MemorySlotKind kind, bool isReadOnly)
    {
        if (kind == MemorySlotKind.Mapping && region.Length > MostSlotBytes)
        {
            throw new ArgumentException($"A mapping of {region.Length} is too large for a slot.", nameof(region));
        }

        CheckFree(region);
        List<int> added = [];
        try
        {
            for (ulong at = 0; at < region.Length.Bytes; at += MostSlotBytes)
            {
                ByteSize length = new(Math.Min(MostSlotBytes, region.Length.Bytes - at));
                GuestRegion part = new(
                    region.Start + at, length, region.HostAddress + (nint)at, region.Vnode, region.PageSize, region.IsReadOnly);
                int number = FreeNumber();
                MemorySlot slot = new((uint)number, part, kind, isReadOnly) { IsLogged = _logs && kind == MemorySlotKind.Ram };
                _slots.Set(slot);
                _numbers[number] = slot;
                added.Add(number);
            }
        }
        catch
        {
            added.ForEach(Remove);
            throw;
        }
    }

    private void Remove(int number)
    {
        MemorySlot slot = _numbers[number]!.Value;
        _slots.Remove(slot);
        _numbers[number] = null;
    }

    private int FreeNumber()
    {
        int free = _numbers.IndexOf(null);
        if (free < 0)
        {
            free = _numbers.Count;
            _numbers.Add(null);
        }

        return free;
    }

    private void CheckFree(in GuestRegion region)
    {
        foreach (MemorySlot? slot in _numbers)
        {
            if (slot is { } taken
                && taken.Region.Start.Value < region.Start.Value + region.Length
                && region.Start.Value < taken.Region.Start.Value + taken.Region.Length)
            {
                throw new ArgumentException($"Memory at {region.Start} overlaps the slot at {taken.Region.Start}.", nameof(region));
            }
        }
    }

    private void CheckSlotted(in GuestRegion region)
    {
        ulong covered = 0;
        lock (_table)
        {
            foreach (MemorySlot? slot in _numbers)
            {
                if (slot is { Kind: MemorySlotKind.Ram } ram)
                {
                    ulong from = Math.Max(ram.Region.Start.Value, region.Start.Value);
                    ulong to = Math.Min(ram.Region.Start.Value + ram.Region.Length, region.Start.Value + region.Length);
                    covered += to > from ? to - from : 0;
                }
            }
        }

        if (covered != region.Length.Bytes)
        {
            throw new ArgumentException($"RAM at {region.Start} is not all in slots: the guest could not reach it.", nameof(region));
        }
    }
}
