using Vmm.Devices.Virtio.Mem;
using Vmm.Interop;
using Vmm.Machine.Run;
using Vmm.Memory;

namespace Vmm.Machine.Ram;

/// <summary>
/// RAM of one vnode that comes and goes while the guest runs. It is cut into at most 64 slices. A slice becomes a memory slot when the
/// first block in it is plugged, and stays one: taking a slot away makes KVM drop every translation of the VM, which stops all vCPUs. For
/// devices it is RAM only while any block in it is plugged; of huge pages only plugged blocks are. Those are taken from the host when they
/// are plugged: one that the pool does not have is a plug refused, not a SIGBUS at first touch. What a guest touches of unplugged blocks in
/// a slot are empty pages that count against the VM's memory limit, which is its maximum.
/// </summary>
internal sealed class HotMemory : IPluggableMemory
{
    private const int MostSlices = 64;

    private readonly Lock _gate = new();
    private readonly MemoryMapOwner _map;
    private readonly VnodeMemory _backing;
    private readonly GuestAddress _start;
    private readonly ulong _size, _slice, _block;
    private readonly bool[] _slots; // slices that are slots
    private readonly int[] _plugged; // blocks of each slice
    private readonly bool _byBlock; // what devices see is counted in blocks, not in slices
    private bool[]? _kept; // blocks that were given up and still have their content (DiscardPolicy)

    /// <param name="map">Takes slots and RAM.</param>
    /// <param name="backing">The memory; it outlives the VM.</param>
    /// <param name="start">Where the guest sees its first byte.</param>
    /// <param name="block">It comes and goes in multiples of this.</param>
    internal HotMemory(MemoryMapOwner map, VnodeMemory backing, GuestAddress start, ByteSize block)
    {
        (_map, _backing, _start, _size, _block) = (map, backing, start, backing.Placement.Size, block);
        ulong blocks = _size / block;
        _slice = (blocks + MostSlices - 1) / MostSlices * block;
        _slots = new bool[(_size + _slice - 1) / _slice];
        _plugged = new int[_slots.Length];
        _byBlock = backing.PageSize > ByteSize.BytesPerPage;
    }

    /// <inheritdoc/>
    public SyscallNeeds Needs => MachineNeeds.HotMemory;

    /// <inheritdoc/>
    public bool TryPlug(ulong offset, ulong length)
    {
        lock (_gate)
        {
            if (!TryDropKept(offset, length))
            {
                return false; // it would not read as zeros
            }

            if (_byBlock && !_backing.TryPopulate(offset, length, out _))
            {
                GiveBack(offset, length); // what of it was taken
                return false;
            }

            if (!TryAddSlots(offset, length) || !TryShow(Unplugged(offset, length)))
            {
                GiveBack(offset, length);
                return false;
            }

            Count(offset, length, 1);
            return true;
        }
    }

    /// <inheritdoc/>
    public void Unplug(ulong offset, ulong length)
    {
        lock (_gate)
        {
            // Devices first: none may start a transfer to what is about to go. One that runs keeps its pages: the mapping stays until the
            // VM is gone.
            Count(offset, length, -1);
            foreach ((ulong at, ulong bytes) in Unplugged(offset, length))
            {
                _map.RemoveRam(_start + at, new ByteSize(bytes));
            }

            GiveBack(offset, length);
        }
    }

    /// <inheritdoc/>
    public bool TryRestore(ReadOnlySpan<bool> plugged)
    {
        for (int first = 0, count; first < plugged.Length; first += count)
        {
            count = plugged[first..].IndexOf(!plugged[first]);
            count = count < 0 ? plugged.Length - first : count;
            ulong offset = (ulong)first * _block, length = (ulong)count * _block;
            if (!plugged[first])
            {
                lock (_gate)
                {
                    GiveBack(offset, length); // whatever the file held there: it reads as zeros when it is plugged
                }
            }
            else if (!TryPlug(offset, length))
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>The parts of a range that devices see come or go: all of it, or the slices with no plugged block.</summary>
    private List<(ulong Offset, ulong Length)> Unplugged(ulong offset, ulong length)
    {
        if (_byBlock)
        {
            return [(offset, length)];
        }

        List<(ulong Offset, ulong Length)> runs = [];
        for (ulong index = offset / _slice; index * _slice < offset + length; index++)
        {
            if (_plugged[index] > 0)
            {
                continue;
            }

            ulong at = index * _slice, bytes = Math.Min(_slice, _size - at);
            if (runs.Count > 0 && runs[^1].Offset + runs[^1].Length == at)
            {
                runs[^1] = (runs[^1].Offset, runs[^1].Length + bytes);
            }
            else
            {
                runs.Add((at, bytes));
            }
        }

        return runs;
    }

    private bool TryShow(List<(ulong Offset, ulong Length)> runs)
    {
        for (int i = 0; i < runs.Count; i++)
        {
            try
            {
                _map.AddRam(Region(runs[i].Offset, runs[i].Length));
            }
            catch (KernelException)
            {
                // A listener cannot have it: the driver is told to try again later.
                for (int shown = 0; shown < i; shown++)
                {
                    _map.RemoveRam(_start + runs[shown].Offset, new ByteSize(runs[shown].Length));
                }

                return false;
            }
        }

        return true;
    }

    private bool TryAddSlots(ulong offset, ulong length)
    {
        for (ulong index = offset / _slice; index * _slice < offset + length; index++)
        {
            if (_slots[index])
            {
                continue;
            }

            try
            {
                _map.AddRamSlot(Region(index * _slice, Math.Min(_slice, _size - (index * _slice))));
                _slots[index] = true;
            }
            catch (KernelException)
            {
                return false; // out of slots or memory: the driver is told to try again later
            }
        }

        return true;
    }

    private void Count(ulong offset, ulong length, int change)
    {
        for (ulong at = offset; at < offset + length; at += _block)
        {
            _plugged[at / _slice] += change;
        }
    }

    private void GiveBack(ulong offset, ulong length)
    {
        if (_map.Discards.TryBegin(length))
        {
            int errno = _map.GiveBack(Region(offset, length), out ulong given);
            _map.Discards.End();
            if (errno != 0 || given == length)
            {
                Keep(offset, length, keep: false);
                return;
            }
        }

        _kept ??= new bool[_size / _block];
        Keep(offset, length, keep: true); // or a transfer uses some of it
    }

    private bool TryDropKept(ulong offset, ulong length)
    {
        if (_kept is not null && Kept(offset, length).Contains(true))
        {
            GiveBack(offset, length);
            return !Kept(offset, length).Contains(true);
        }

        return true;
    }

    private void Keep(ulong offset, ulong length, bool keep)
    {
        if (_kept is not null)
        {
            Kept(offset, length).Fill(keep);
        }
    }

    private Span<bool> Kept(ulong offset, ulong length) => _kept.AsSpan((int)(offset / _block), (int)(length / _block));

    private GuestRegion Region(ulong offset, ulong length) => _backing.Region(_start + offset, new ByteSize(length), offset);
}
