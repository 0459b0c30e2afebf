using Vmm.Memory;

namespace Vmm.Devices.Virtio;

/// <summary>Where a split virtqueue lies in guest RAM (virtio 1.2 section 2.7).</summary>
/// <param name="Size">Number of descriptors, a power of two up to 32768.</param>
/// <param name="Descriptors">Descriptor table, 16-byte aligned.</param>
/// <param name="Driver">Available ring, 2-byte aligned.</param>
/// <param name="Device">Used ring, 4-byte aligned.</param>
public readonly record struct VirtqueueLayout(ushort Size, GuestAddress Descriptors, GuestAddress Driver, GuestAddress Device);

/// <summary>Answer of <see cref="Virtqueue.TryTake"/>.</summary>
public enum TakeResult
{
    /// <summary>Nothing new in the available ring.</summary>
    Empty,

    /// <summary>A chain was taken.</summary>
    Taken,

    /// <summary>The driver broke the ring: the device must stop and set NEEDS_RESET.</summary>
    Malformed,
}

/// <summary>
/// The device side of a split virtqueue (virtio 1.2 section 2.7): takes chains, gives them back, and decides about notifications. One
/// thread at a time. Allocates nothing after creation. Everything the driver wrote is checked on a copy.
/// </summary>
public sealed class Virtqueue
{
    private const ushort AvailNoInterrupt = 1;
    private const ushort UsedNoNotify = 1;

    private readonly DmaSpace _memory;
    private readonly RingView _ring;
    private readonly VirtqueueLayout _layout;
    private readonly bool _eventIndex;
    private readonly bool _indirect;
    private ushort _nextAvail;
    private ushort _seenAvail; // the driver's index when it was last read: up to there it need not be read again
    private ushort _nextUsed;
    private ushort _publishedUsed;
    private bool _notificationsOn = true;

    private Virtqueue(DmaSpace memory, RingView ring, VirtqueueLayout layout, ulong features)
    {
        _memory = memory;
        _ring = ring;
        _layout = layout;
        _eventIndex = (features & VirtioFeatures.EventIndex) != 0;
        _indirect = (features & VirtioFeatures.IndirectDescriptors) != 0;
    }

    /// <summary>Where it lies.</summary>
    public VirtqueueLayout Layout => _layout;

    /// <summary>The lease of its parts.</summary>
    internal RingView Ring => _ring;

    /// <summary>Number of descriptors.</summary>
    public ushort Size => _layout.Size;

    /// <summary>Index of the next available entry, for saved state.</summary>
    public ushort NextAvailable => _nextAvail;

    /// <summary>Index of the next used entry, for saved state.</summary>
    public ushort NextUsed => _nextUsed;

    /// <summary>Checks size, alignment and place of the three parts, then builds the queue.</summary>
    /// <returns>False with <paramref name="reason"/> when the driver's layout is impossible.</returns>
    public static bool TryCreate(GuestMemory memory, VirtqueueLayout layout, ulong features, out Virtqueue? queue, out string? reason)
    {
        queue = null;
        ulong size = layout.Size;
        reason = (size is 0 or > 32768 || (size & (size - 1)) != 0) ? $"queue size {size} is not a power of two up to 32768"
            : (layout.Descriptors.Value & 15) != 0 ? $"descriptor table at {layout.Descriptors} is not 16-byte aligned"
            : (layout.Driver.Value & 1) != 0 ? $"available ring at {layout.Driver} is not 2-byte aligned"
            : (layout.Device.Value & 3) != 0 ? $"used ring at {layout.Device} is not 4-byte aligned"
            : !memory.Contains(layout.Descriptors, 16 * size) ? $"descriptor table at {layout.Descriptors} is not in RAM"
            : !memory.Contains(layout.Driver, 6 + (2 * size)) ? $"available ring at {layout.Driver} is not in RAM"
            : !memory.Contains(layout.Device, 6 + (8 * size)) ? $"used ring at {layout.Device} is not in RAM"
            : null;
        if (reason is not null)
        {
            return false;
        }

        if (!memory.Dma.TryAcquireRing(new RingParts(layout.Size, layout.Descriptors, layout.Driver, layout.Device), out RingView? ring))
        {
            reason = "memory under the queue was unplugged";
            return false;
        }

        queue = new Virtqueue(memory.Dma, ring, layout, features);
        return true;
    }

    /// <summary>Sets the indices of a restored queue.</summary>
    public void Restore(ushort nextAvailable, ushort nextUsed)
    {
        _nextAvail = nextAvailable;
        _seenAvail = nextAvailable;
        _nextUsed = nextUsed;
        _publishedUsed = nextUsed;
    }

    /// <summary>How far it was served, for saved state.</summary>
    public VirtqueueStateV1 Capture() => new() { NextAvailable = _nextAvail, NextUsed = _nextUsed };

    /// <summary>Takes the next chain; <paramref name="head"/> is below <see cref="Size"/>.</summary>
    public TakeResult TryTake(out ushort head)
    {
        head = 0;
        if (_seenAvail == _nextAvail)
        {
            // Read once for all that is there: the driver's processor writes that line all the time.
            if (!_ring.TryReadAvailableIndex(out ushort available))
            {
                return TakeResult.Malformed;
            }

            ushort pending = unchecked((ushort)(available - _nextAvail));
            if (pending == 0)
            {
                return TakeResult.Empty;
            }

            // The driver cannot have more chains outstanding than there are descriptors (2.7.13.1).
            if (pending > Size)
            {
                return TakeResult.Malformed;
            }

            _seenAvail = available;
        }

        if (!_ring.TryReadAvailable(_nextAvail, out head) || head >= Size)
        {
            return TakeResult.Malformed;
        }

        _nextAvail = unchecked((ushort)(_nextAvail + 1));
        return TakeResult.Taken;
    }

    /// <summary>The last <paramref name="chains"/> taken chains, none of which was completed, count as not taken.</summary>
    public void Untake(int chains) => _seenAvail = _nextAvail = unchecked((ushort)(_nextAvail - chains));

    /// <summary>True when the available ring has entries that were not taken yet.</summary>
    public bool HasPending => _ring.TryReadAvailableIndex(out ushort available) && available != _nextAvail;

    /// <summary>Walks the buffers of a taken chain.</summary>
    public ChainWalker Walk(ushort head) => new(_memory, _ring, head, _indirect);

    /// <summary>The indirect table of a taken chain, when it begins with one: not checked.</summary>
    public bool TryFindTable(ushort head, out GuestRange table)
    {
        RingDescriptor descriptor = default;
        bool found = _indirect && _ring.TryReadDescriptor(head, out descriptor) && (descriptor.Flags & ChainWalker.FlagIndirect) != 0;
        table = found ? new GuestRange(new GuestAddress(descriptor.Address), descriptor.Length) : default;
        return found;
    }

    /// <summary>Gives a chain back with the number of bytes written to it. The driver sees it after <see cref="Publish"/>.</summary>
    public void Complete(ushort head, uint written)
    {
        _ring.TryWriteUsed(_nextUsed, head, written);
        _nextUsed = unchecked((ushort)(_nextUsed + 1));
    }

    /// <summary>Shows all completed chains to the driver. True when it wants an interrupt for them (2.7.7, 2.7.10).</summary>
    public bool Publish()
    {
        ushort old = _publishedUsed;
        if (old == _nextUsed)
        {
            return false;
        }

        _ring.TryWriteUsedIndex(_nextUsed);
        _publishedUsed = _nextUsed;
        // The index must be visible before the driver's wish is read, or both sides could wait for each other.
        Interlocked.MemoryBarrier();
        if (_eventIndex)
        {
            _ring.TryReadUsedEvent(out ushort wanted);
            return unchecked((ushort)(_nextUsed - wanted - 1)) < unchecked((ushort)(_nextUsed - old));
        }

        return _ring.TryReadAvailableFlags(out ushort flags) && (flags & AvailNoInterrupt) == 0;
    }

    /// <summary>Asks the driver not to ring the doorbell while the device polls.</summary>
    public void DisableNotifications()
    {
        if (_notificationsOn)
        {
            _notificationsOn = false;
            if (_eventIndex)
            {
                // There is no "off" with an event index (2.7.10): an index that has just gone by is 65535 chains away.
                _ring.TryWriteAvailableEvent(unchecked((ushort)(_nextAvail - 1)));
            }
            else
            {
                _ring.TryWriteUsedFlags(UsedNoNotify);
            }
        }
    }

    /// <summary>Asks for the doorbell again. True when chains arrived meanwhile: take them before sleeping.</summary>
    public bool EnableNotifications()
    {
        _notificationsOn = true;
        if (_eventIndex)
        {
            _ring.TryWriteAvailableEvent(_nextAvail);
        }
        else
        {
            _ring.TryWriteUsedFlags(0);
        }

        Interlocked.MemoryBarrier();
        return HasPending;
    }
}
