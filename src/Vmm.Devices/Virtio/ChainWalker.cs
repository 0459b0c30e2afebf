using Vmm.Memory;

namespace Vmm.Devices.Virtio;

/// <summary>One buffer of a chain, inside guest RAM when <see cref="ChainWalker"/> handed it out.</summary>
/// <param name="Address">Guest physical address.</param>
/// <param name="Length">Bytes, at least 1.</param>
/// <param name="Writable">True when the device writes it, false when it reads it.</param>
public readonly record struct VirtioBuffer(GuestAddress Address, uint Length, bool Writable);

/// <summary>Answer of <see cref="ChainWalker.MoveNext"/>.</summary>
public enum ChainStep
{
    /// <summary><see cref="ChainWalker.Current"/> is the next buffer.</summary>
    Buffer,

    /// <summary>The chain is over.</summary>
    End,

    /// <summary>The chain breaks the rules of virtio 1.2 section 2.7.5: stop and set NEEDS_RESET.</summary>
    Malformed,
}

/// <summary>
/// Iterates a descriptor chain (virtio 1.2 section 2.7.5), direct or indirect, with a budget of one step per descriptor of the queue so
/// that a looped chain ends. Every descriptor is read once and checked: in RAM, not wrapping, readable before writable.
/// </summary>
public ref struct ChainWalker
{
    private const ushort FlagNext = 1;
    private const ushort FlagWrite = 2;
    internal const ushort FlagIndirect = 4;

    private readonly DmaSpace _memory;
    private readonly RingView _ring;
    private readonly bool _indirectAllowed;
    private GuestAddress _table; // the indirect one, once the chain came to it
    private uint _tableSize;
    private int _budget;
    private int _next;
    private bool _inIndirect;
    private bool _sawWritable;
    private bool _broken;
    private int _hint; // where the last buffer was found

    internal ChainWalker(DmaSpace memory, RingView ring, ushort head, bool indirectAllowed)
    {
        _memory = memory;
        _ring = ring;
        _tableSize = ring.Parts.Size;
        _budget = ring.Parts.Size + 1; // a full-length indirect table plus the descriptor that points at it
        _next = head;
        _indirectAllowed = indirectAllowed;
    }

    /// <summary>The buffer of the last <see cref="ChainStep.Buffer"/>.</summary>
    public VirtioBuffer Current { get; private set; }

    /// <summary>Goes to the next buffer. After <see cref="ChainStep.Malformed"/> it stays so.</summary>
    public ChainStep MoveNext()
    {
        if (_broken)
        {
            return ChainStep.Malformed;
        }

        if (_next < 0)
        {
            return ChainStep.End;
        }

        if (!TryReadDescriptor(out RingDescriptor descriptor))
        {
            return Break();
        }

        if ((descriptor.Flags & FlagIndirect) != 0)
        {
            // 2.7.5.3.1: not nested, not with NEXT; the table is a whole number of descriptors and fits the queue size.
            uint entries = descriptor.Length / 16;
            if (!_indirectAllowed || _inIndirect || (descriptor.Flags & FlagNext) != 0 || descriptor.Length % 16 != 0 || entries == 0
                || entries > 65536 || !IsRam(descriptor, DmaAccess.Read))
            {
                return Break();
            }

            _inIndirect = true;
            _table = new(descriptor.Address);
            _tableSize = entries;
            _next = 0;
            if (!TryReadDescriptor(out descriptor) || (descriptor.Flags & FlagIndirect) != 0)
            {
                return Break();
            }
        }

        bool writable = (descriptor.Flags & FlagWrite) != 0;
        if (descriptor.Length == 0 || (_sawWritable && !writable) || !IsRam(descriptor, writable ? DmaAccess.Write : DmaAccess.Read))
        {
            return Break();
        }

        _sawWritable |= writable;
        _next = (descriptor.Flags & FlagNext) != 0 ? descriptor.Next : -1;
        Current = new VirtioBuffer(new(descriptor.Address), descriptor.Length, writable);
        return ChainStep.Buffer;
    }

    private bool IsRam(in RingDescriptor descriptor, DmaAccess access) =>
        _memory.Contains(new GuestRange(new(descriptor.Address), descriptor.Length), access, ref _hint);

    private bool TryReadDescriptor(out RingDescriptor descriptor)
    {
        if (_budget-- <= 0 || (uint)_next >= _tableSize)
        {
            descriptor = default;
            return false;
        }

        return _inIndirect
            ? _memory.TryRead(new GuestAddress(_table.Value + ((ulong)_next * 16)), out descriptor)
            : _ring.TryReadDescriptor((ushort)_next, out descriptor);
    }

    private ChainStep Break()
    {
        _broken = true;
        return ChainStep.Malformed;
    }
}
