using Vmm.Devices.Virtio.Mem;
using Vmm.Machine.Layout;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Kinds;

/// <summary>Memory of a vnode that comes and goes: <c>minMemory</c> and <c>maxMemory</c>.</summary>
internal static class MemKind
{
    internal static readonly DeviceKind Kind = new() { Name = "mem", Section = "maxMemory", Plan = Plan, Build = Make };

    private static IEnumerable<DevicePlan> Plan(VmSpec spec)
    {
        IReadOnlyList<VnodeSpec> vnodes = spec.EffectiveVnodes;
        for (int i = 0; i < vnodes.Count; i++)
        {
            if (vnodes[i].HotMemory > 0)
            {
                yield return new DevicePlan($"mem{i}", spec.VirtioTransport, i);
            }
        }
    }

    private static VirtioMem Make(DeviceSetup setup)
    {
        RamExtent extent = setup.Machine.Hot.First(each => each.Vnode == setup.Description.Vnode);
        VnodeSpec vnode = setup.Spec.EffectiveVnodes[extent.Vnode];
        return new VirtioMem(
            new VirtioMemOptions
            {
                Name = setup.Description.Id,
                Start = extent.Start,
                Length = extent.Length,
                BlockSize = vnode.HotBlock,
                Vnode = extent.Vnode,
                Requested = new ByteSize(vnode.Memory - vnode.BootMemory),
            },
            setup.Board.Memory.AddHot(extent, vnode.HotBlock));
    }
}
