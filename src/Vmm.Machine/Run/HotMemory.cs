using Vmm.Devices.Virtio.Mem;
using Vmm.Interop;
using Vmm.Kvm;
using Vmm.Memory;

namespace Vmm.Machine.Run;

/// <summary>
/// RAM that comes and goes while the guest runs. Each region is cut into at most 64 slices. A slice becomes a KVM memory slot when the first block in it is
/// plugged, and stays one: taking a slot away makes KVM drop every translation of the VM, which stops all vCPUs. For devices it is RAM only while any block in
/// it is plugged. What a guest touches of unplugged blocks in a slot are empty pages that count against the VM's memory limit, which is its maximum.
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
        private readonly int[] _plugged = new int[(backing.Placement.Size + slice - 1) / slice];

        internal int Slices => _plugged.Length;

        public bool TryPlug(ulong offset, ulong length)
        {
            lock (owner._gate)
            {
                bool appeared = false;
                for (ulong at = offset; at < offset + length; at += block)
                {
                    int index = (int)(at / slice);
                    if (_plugged[index] == 0)
                    {
                        if (!TryAddSlot(index))
                        {
                            TakeBack(offset, at - offset);
                            owner.ShowDevices();
                            return false;
                        }

                        appeared = true;
                    }

                    _plugged[index]++;
                }

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

                _ = HostPages.Discard((nint)((ulong)Host(0) + offset), length);
            }
        }

        internal void AddRuns(List<GuestRegion> regions)
        {
            for (int first = 0; first < _plugged.Length; first++)
            {
                int end = first;
                while (end < _plugged.Length && _plugged[end] > 0)
                {
                    end++;
                }

                if (end > first)
                {
                    ulong offset = (ulong)first * slice;
                    ulong length = Math.Min((ulong)end * slice, backing.Placement.Size) - offset;
                    regions.Add(backing.Region(start + offset, new ByteSize(length), offset));
                    first = end;
                }
            }
        }

        /// <summary>Counts the blocks of a range off; true when a slice lost its last one.</summary>
        private bool TakeBack(ulong offset, ulong length)
        {
            bool vanished = false;
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
