using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Vmm.Memory;

/// <summary>Where the parts of a split virtqueue lie in guest memory (virtio 1.2 section 2.7).</summary>
/// <param name="Size">Number of descriptors, a power of two up to 32768.</param>
/// <param name="Descriptors">Descriptor table, 16-byte aligned.</param>
/// <param name="Available">Available ring, 2-byte aligned; the driver writes it.</param>
/// <param name="Used">Used ring, 4-byte aligned; the device writes it.</param>
public readonly record struct RingParts(ushort Size, GuestAddress Descriptors, GuestAddress Available, GuestAddress Used);

/// <summary>One descriptor (virtio 1.2 section 2.7.5), as it was when it was read.</summary>
/// <param name="Address">Guest physical address of the buffer.</param>
/// <param name="Length">Bytes.</param>
/// <param name="Flags">VIRTQ_DESC_F_*.</param>
/// <param name="Next">Index of the next one, when the flags say so.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct RingDescriptor(ulong Address, uint Length, ushort Flags, ushort Next);

/// <summary>Where the parts of a ring are mapped in this process, for the kernel alone.</summary>
/// <param name="Descriptors">Descriptor table.</param>
/// <param name="Available">Available ring.</param>
/// <param name="Used">Used ring.</param>
public readonly record struct RingAddresses(nint Descriptors, nint Available, nint Used);

/// <summary>
/// A lease of a ring while its queue is active: fixed pointers to its parts, typed reads and writes in the memory order that virtio asks
/// for. One thread at a time, nothing is allocated. When the regions were replaced the parts are looked up again: an access answers false
/// when the guest unplugged the memory under its ring. Positions count modulo the size.
/// </summary>
public sealed unsafe class RingView
{
    private readonly GuestRam _ram;
    private readonly RingParts _parts;
    private readonly int _mask;
    private RegionTable? _table; // the regions that the pointers were found in
    private byte* _descriptors;
    private byte* _available;
    private byte* _used;
    private RingAddresses _pinned; // what Pin pinned

    internal RingView(GuestRam ram, RingParts parts)
    {
        if (!BitOperations.IsPow2(parts.Size) || parts.Size > 32768)
        {
            throw new ArgumentOutOfRangeException(nameof(parts), parts.Size, "A ring's size is a power of two up to 32768.");
        }

        _ram = ram;
        _parts = parts;
        _mask = parts.Size - 1;
    }

    /// <summary>Where it lies.</summary>
    public RingParts Parts => _parts;

    private int UsedBytes => 6 + (8 * _parts.Size);

    private int AvailableBytes => 6 + (2 * _parts.Size);

    /// <summary>Reads the driver's index (acquire): the entries before it can be read after this.</summary>
    public bool TryReadAvailableIndex(out ushort value) => TryReadAvailable(2, out value);

    /// <summary>Reads one entry of the available ring: the head of a chain, not checked.</summary>
    public bool TryReadAvailable(ushort position, out ushort head) => TryReadAvailable(4 + (2 * (position & _mask)), out head);

    /// <summary>Reads the flags of the available ring (2.7.6).</summary>
    public bool TryReadAvailableFlags(out ushort flags) => TryReadAvailable(0, out flags);

    /// <summary>Reads the used index for which the driver wants an interrupt (2.7.7.1).</summary>
    public bool TryReadUsedEvent(out ushort value) => TryReadAvailable(AvailableBytes - 2, out value);

    /// <summary>Reads one descriptor, once; false when there is no such index, too.</summary>
    public bool TryReadDescriptor(ushort index, out RingDescriptor descriptor)
    {
        if (index >= _parts.Size || !TryHold())
        {
            descriptor = default;
            return false;
        }

        descriptor = Unsafe.ReadUnaligned<RingDescriptor>(_descriptors + (16 * index));
        return true;
    }

    /// <summary>Writes one entry of the used ring; the driver looks at it after <see cref="TryWriteUsedIndex"/>.</summary>
    /// <param name="position">Which entry.</param>
    /// <param name="head">The chain.</param>
    /// <param name="written">Bytes that the device wrote to it.</param>
    public bool TryWriteUsed(ushort position, ushort head, uint written)
    {
        if (!TryHold())
        {
            return false;
        }

        int offset = 4 + (8 * (position & _mask));
        Unsafe.WriteUnaligned(_used + offset, head | ((ulong)written << 32));
        MarkUsed(offset, 8);
        return true;
    }

    /// <summary>Writes the device's index (release): the driver sees the entries before it.</summary>
    public bool TryWriteUsedIndex(ushort value) => TryWriteUsed(2, value);

    /// <summary>Reads the device's index back, when somebody else served the ring.</summary>
    public bool TryReadUsedIndex(out ushort value) => TryReadUsed(2, out value);

    /// <summary>The same with the available index for which it wants a notification (2.7.10).</summary>
    public bool TryReadAvailableEvent(out ushort value) => TryReadUsed(UsedBytes - 2, out value);

    /// <summary>Writes the flags of the used ring (2.7.8).</summary>
    public bool TryWriteUsedFlags(ushort value) => TryWriteUsed(0, value);

    /// <summary>Writes the available index for which the device wants a notification (2.7.10).</summary>
    public bool TryWriteAvailableEvent(ushort value) => TryWriteUsed(UsedBytes - 2, value);

    /// <summary>
    /// Where the parts are mapped in this process, for a kernel that serves the ring itself (vhost); false when they are no RAM any more.
    /// </summary>
    /// <param name="addresses">They hold until the regions are replaced: whoever gets them is told of that.</param>
    public bool TryGetKernelAddresses(out RingAddresses addresses)
    {
        bool found = TryHold();
        addresses = found ? new RingAddresses((nint)_descriptors, (nint)_available, (nint)_used) : default;
        return found;
    }

    /// <summary>Keeps its pages in memory, and waits for them: before the first access. Nothing happens where nobody pages.</summary>
    internal void Pin()
    {
        if (_ram.Pages is { } pages)
        {
            _pinned = new RingAddresses((nint)_descriptors, (nint)_available, (nint)_used);
            pages.PinRing(_pinned.Descriptors, 16UL * _parts.Size);
            pages.PinRing(_pinned.Available, (ulong)AvailableBytes);
            pages.PinRing(_pinned.Used, (ulong)UsedBytes);
        }
    }

    /// <summary>The queue is not active any more: its pages may go. Once.</summary>
    public void Release()
    {
        if (_ram.Pages is { } pages && _pinned != default)
        {
            pages.UnpinRing(_pinned.Descriptors, 16UL * _parts.Size);
            pages.UnpinRing(_pinned.Available, (ulong)AvailableBytes);
            pages.UnpinRing(_pinned.Used, (ulong)UsedBytes);
            _pinned = default;
        }
    }

    /// <summary>True when the pointers are those of the present regions, perhaps after a look-up.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool TryHold() => ReferenceEquals(_table, _ram.Table) || TryFind();

    [MethodImpl(MethodImplOptions.NoInlining)]
    private bool TryFind()
    {
        RegionTable table = _ram.Table;
        int hint = 0;
        bool found = ((_parts.Descriptors.Value & 15) | (_parts.Available.Value & 1) | (_parts.Used.Value & 3)) == 0
            & table.TryMap(_parts.Descriptors, 16UL * _parts.Size, ref hint, out _descriptors)
            & table.TryMap(_parts.Available, (ulong)AvailableBytes, ref hint, out _available)
            & table.TryMapToWrite(_parts.Used, (ulong)UsedBytes, ref hint, out _used);
        _table = found ? table : null;
        return found;
    }

    private bool TryReadUsed(int offset, out ushort value)
    {
        bool held = TryHold();
        value = held ? Volatile.Read(ref *(ushort*)(_used + offset)) : (ushort)0;
        return held;
    }

    private bool TryReadAvailable(int offset, out ushort value)
    {
        if (!TryHold())
        {
            value = 0;
            return false;
        }

        value = Volatile.Read(ref *(ushort*)(_available + offset));
        return true;
    }

    private bool TryWriteUsed(int offset, ushort value)
    {
        if (!TryHold())
        {
            return false;
        }

        Volatile.Write(ref *(ushort*)(_used + offset), value);
        MarkUsed(offset, 2);
        return true;
    }

    private void MarkUsed(int offset, uint length) => _ram.MarkWritten(new GuestAddress(_parts.Used.Value + (ulong)offset), length);
}
