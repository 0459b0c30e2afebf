using Vmm.Devices.Virtio.Mem;
using Vmm.Machine.Hotplug;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Saved;

/// <summary>Memory that has a file of its own in a saved VM.</summary>
/// <param name="Vnode">The vnode that it is of.</param>
/// <param name="Memory">The memory.</param>
/// <param name="Device">The device that says what of it the guest has; null for memory of the start, which it has all of.</param>
internal sealed record MemoryPart(int Vnode, VnodeMemory Memory, VirtioMem? Device)
{
    /// <summary>Name of its file.</summary>
    internal string FileName => Device is null ? SavedVmFiles.Memory(Vnode) : SavedVmFiles.HotMemory(Vnode);

    /// <summary>Its size.</summary>
    internal ulong Bytes => Memory.Placement.Size;

    /// <summary>All memory of a machine, that of the start first.</summary>
    internal static IReadOnlyList<MemoryPart> Of(VirtualMachine machine)
    {
        List<MemoryPart> parts = [];
        foreach ((int vnode, VnodeMemory memory) in machine.Board.Memory.Start)
        {
            parts.Add(new MemoryPart(vnode, memory, Device: null));
        }

        foreach ((int vnode, VnodeMemory memory) in machine.Board.Memory.Hot)
        {
            AttachedDevice device = machine.DeviceSet.All.First(d => d.Device is VirtioMem && d.Description.Vnode == vnode);
            parts.Add(new MemoryPart(vnode, memory, (VirtioMem)device.Device));
        }

        return parts;
    }

    /// <summary>The next range that the guest has and that was ever touched; false: there is none from there on.</summary>
    internal bool TryFindData(ulong from, out ulong start, out ulong end)
    {
        if (Device is null)
        {
            return Memory.TryFindData(from, out start, out end);
        }

        for (ulong at = from; Device.TryFindPlugged(at, out ulong first, out ulong over) && Memory.TryFindData(first, out start, out end);
            at = Math.Max(start, over))
        {
            if (start < over)
            {
                end = Math.Min(end, over);
                return true;
            }
        }

        (start, end) = (0, 0);
        return false;
    }
}
