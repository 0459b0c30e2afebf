using Vmm.Devices.Virtio.Mem;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>
/// RAM that comes and goes while the guest runs. Each region is cut into at most 64 slices. A slice becomes a KVM memory slot when the first block in it is
/// plugged, and stays one: taking a slot away makes KVM drop every translation of the VM, which stops all vCPUs. For devices it is RAM only while any block in
/// it is plugged; of huge pages only plugged blocks are. Those are taken from the host when they are plugged: one that the pool does not have is a plug refused,
/// not a SIGBUS at first touch. What a guest touches of unplugged blocks in a slot are empty pages that count against the VM's memory limit, which is its maximum.
/// </summary>
internal sealed class HotMemory(KvmVm vm, GuestMemory memory, uint firstSlot)
{
    private const int MostSlices = 64;

    private readonly KvmVm _vm = vm;
    private readonly Lock _gate = new();
    private readonly IReadOnlyList<GuestRegion> _fixed = memory.Regions;
    private readonly List<Region> _regions = [];
    private uint _nextSlot = firstSlot;

    /// <summary>Adds a region; the backing memory must outlive the VM.</summary>
    internal IPluggableMemory Add(VnodeMemory backing, GuestAddress start, ByteSize block)
    {
        ulong blocks = backing.Placement.Size / block;
        Region region = new(this, backing, start, ((blocks + MostSlices - 1) / MostSlices) * block, block, _nextSlot);
        _nextSlot += (uint)region.Slices;
        _regions.Add(region);
        return region;
    }

    /// <summary>Shows devices what is RAM now: fixed regions and, joined where they touch, the slices in use. Under the lock.</summary>
    private void ShowDevices()
    {
        List<GuestRegion> all = [.. _fixed];
        foreach (Region region in _regions)
        {
            region.AddRuns(all);
        }

        memory.ReplaceRegions(all);
    }

    private sealed class Region(HotMemory owner, VnodeMemory backing, GuestAddress start, ulong slice, ByteSize block, uint firstSlot) : IPluggableMemory
    {
        private readonly bool[] _slots = new bool[(backing.Placement.Size + slice - 1) / slice];
        private readonly bool[]? _live = backing.PageSize > ByteSize.BytesPerPage ? new bool[backing.Placement.Size / block] : null; // blocks, where they count one by one
        private readonly int[] _plugged = new int[(backing.Placement.Size + slice - 1) / slice];

        internal int Slices => _plugged.Length;

        public SyscallNeeds Needs => MachineNeeds.HotMemory;

        public bool TryPlug(ulong offset, ulong length)
        {
            lock (owner._gate)
            {
                if (_live is not null && !TryTakeHugePages(offset, length))
                {
                    return false;
                }

                bool appeared = _live is not null;
                for (ulong at = offset; at < offset + length; at += block)
                {
                    int index = (int)(at / slice);
                    if (_plugged[index] == 0)
                    {
                        if (!TryAddSlot(index))
                        {
                            TakeBack(offset, at - offset);
                            owner.ShowDevices();
                            GiveBack(offset, length);
                            return false;
                        }

                        appeared = true;
                    }

                    _plugged[index]++;
                }

                _live?.AsSpan((int)(offset / block), (int)(length / block)).Fill(true);

                if (appeared)
                {
                    owner.ShowDevices();
                }

                return true;
            }
        }

        public void Unplug(ulong offset, ulong length)
        {
            lock (owner._gate)
            {
                // Devices first: none may start a transfer to what is about to go. One that runs keeps its pages: the mapping stays until the VM is gone.
                if (TakeBack(offset, length))
                {
                    owner.ShowDevices();
                }

                GiveBack(offset, length);
            }
        }

        internal void AddRuns(List<GuestRegion> regions)
        {
            int parts = _live?.Length ?? _plugged.Length;
            ulong part = _live is null ? slice : block;
            for (int first = 0; first < parts; first++)
            {
                int end = first;
                while (end < parts && (_live is null ? _plugged[end] > 0 : _live[end]))
                {
                    end++;
                }

                if (end > first)
                {
                    ulong offset = (ulong)first * part;
                    ulong length = Math.Min((ulong)end * part, backing.Placement.Size) - offset;
                    regions.Add(backing.Region(start + offset, new ByteSize(length), offset));
                    first = end;
                }
            }
        }

        /// <summary>Takes the huge pages of a range from the pool now; what of them was taken goes back when they are too few.</summary>
        private bool TryTakeHugePages(ulong offset, ulong length)
        {
            if (backing.TryPopulate(offset, length, out _))
            {
                return true;
            }

            GiveBack(offset, length);
            return false;
        }

        private void GiveBack(ulong offset, ulong length) => _ = HostPages.Discard((nint)((ulong)Host(0) + offset), length);

        /// <summary>Counts the blocks of a range off; true when devices see less than before.</summary>
        private bool TakeBack(ulong offset, ulong length)
        {
            bool vanished = _live is not null;
            _live?.AsSpan((int)(offset / block), (int)(length / block)).Clear();
            for (ulong at = offset; at < offset + length; at += block)
            {
                int index = (int)(at / slice);
                vanished |= --_plugged[index] == 0;
            }

            return vanished;
        }

        private bool TryAddSlot(int index)
        {
            if (_slots[index])
            {
                return true;
            }

            ulong offset = (ulong)index * slice;
            try
            {
                owner._vm.SetMemorySlot(firstSlot + (uint)index, start.Value + offset, Math.Min(slice, backing.Placement.Size - offset), Host(offset));
                _slots[index] = true;
                return true;
            }
            catch (KernelException)
            {
                return false; // out of slots or memory: the driver is told to try again later
            }
        }

        private nint Host(ulong offset) => backing.Region(start, new ByteSize(block), 0).HostAddress + (nint)offset;
    }
}
