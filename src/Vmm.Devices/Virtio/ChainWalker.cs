using System.Runtime.InteropServices;
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
    private const ushort FlagIndirect = 4;

    private readonly GuestMemory _memory;
    private readonly bool _indirectAllowed;
    private GuestAddress _table;
    private uint _tableSize;
    private int _budget;
    private int _next;
    private bool _inIndirect;
    private bool _sawWritable;
    private bool _broken;

    internal ChainWalker(GuestMemory memory, GuestAddress table, ushort queueSize, ushort head, bool indirectAllowed)
    {
        _memory = memory;
        _table = table;
        _tableSize = queueSize;
        _budget = queueSize + 1; // a full-length indirect table plus the descriptor that points at it
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

        if (!TryReadDescriptor(out Descriptor descriptor))
        {
            return Break();
        }

        if ((descriptor.Flags & FlagIndirect) != 0)
        {
            // 2.7.5.3.1: not nested, not with NEXT; the table is a whole number of descriptors and fits the queue size.
            uint entries = descriptor.Length / 16;
            if (!_indirectAllowed || _inIndirect || (descriptor.Flags & FlagNext) != 0 || descriptor.Length % 16 != 0 || entries == 0
                || entries > 65536 || !_memory.Contains(new(descriptor.Address), descriptor.Length))
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
        if (descriptor.Length == 0 || (_sawWritable && !writable) || !_memory.Contains(new(descriptor.Address), descriptor.Length))
        {
            return Break();
        }

        _sawWritable |= writable;
        _next = (descriptor.Flags & FlagNext) != 0 ? descriptor.Next : -1;
        Current = new VirtioBuffer(new(descriptor.Address), descriptor.Length, writable);
        return ChainStep.Buffer;
    }

    /// <summary>Copies the readable bytes from here on, as many as there is room for; false when the chain is malformed.</summary>
    public bool Gather(Span<byte> into, out int bytes)
    {
        bytes = 0;
        ChainStep step;
        while ((step = MoveNext()) == ChainStep.Buffer)
        {
            int length = (int)Math.Min(Current.Length, (uint)(into.Length - bytes));
            if (!Current.Writable && length > 0 && _memory.TryRead(Current.Address, into.Slice(bytes, length)))
            {
                bytes += length;
            }
        }

        return step == ChainStep.End;
    }

    private bool TryReadDescriptor(out Descriptor descriptor)
    {
        if (_budget-- <= 0 || (uint)_next >= _tableSize)
        {
            descriptor = default;
            return false;
        }

        return _memory.TryRead(new GuestAddress(_table.Value + ((ulong)_next * 16)), out descriptor);
    }

    private ChainStep Break()
    {
        _broken = true;
        return ChainStep.Malformed;
    }

    [StructLayout(LayoutKind.Sequential)]
    private readonly struct Descriptor
    {
        public readonly ulong Address;
        public readonly uint Length;
        public readonly ushort Flags;
        public readonly ushort Next;
    }
}
