using Vmm.Devices.VhostUser;
using Vmm.Devices.Virtio.Blk;
using Vmm.Devices.Virtio.Net;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Spec.Devices;

namespace Vmm.Machine.Kinds;

/// <summary>Devices that another program serves over vhost-user: entries of <c>devices</c>.</summary>
internal static class VhostUserKinds
{
    internal static readonly DeviceKind Blk = DeviceKind.OfDevices<VhostUserBlkSpec>(
        "vhost-user-blk", onRootBus: false, (setup, spec, _) => MakeBlk(setup, spec));

    internal static readonly DeviceKind Net = DeviceKind.OfDevices<VhostUserNetSpec>(
        "vhost-user-net", onRootBus: false, (setup, spec, _) => MakeNet(setup, spec));

    private const int FirstMacIndex = 64; // behind those of nets

    private static VhostUserBlk MakeBlk(DeviceSetup setup, VhostUserBlkSpec spec)
    {
        List<MemoryExtent> memory = MemoryOf(setup, spec);
        VhostUserLink link = Open(setup, spec, VhostUserBlk.Needs(spec.Queues, spec.QueueSize));
        return new VhostUserBlk(setup.Description.Id, spec.Socket, spec.Queues, spec.QueueSize, link, memory);
    }

    private static VhostUserNet MakeNet(DeviceSetup setup, VhostUserNetSpec spec)
    {
        byte[] mac = new byte[6];
        if (spec.Mac is null || !MacAddress.TryParse(spec.Mac, mac))
        {
            mac = MacAddress.Default(setup.Spec.Name, FirstMacIndex + setup.Index);
        }

        List<MemoryExtent> memory = MemoryOf(setup, spec);
        VhostUserLink link = Open(setup, spec, VhostUserNet.Needs);
        return new VhostUserNet(setup.Description.Id, spec.Socket, mac, spec.Mtu ?? 0, spec.QueueSize, link, memory);
    }

    private static VhostUserLink Open(DeviceSetup setup, DeviceSpec spec, VhostUserNeeds needs) =>
        setup.Board.Resources.OpenBackEnd(DeviceKind.EntryOf(setup, spec), setup.Description.Id, spec, needs);

    private static List<MemoryExtent> MemoryOf(DeviceSetup setup, DeviceSpec spec)
    {
        List<MemoryExtent> memory = setup.Board.Memory.Extents;
        return memory.Count <= VhostUserDevice.MostMemoryPieces ? memory : throw new VhostUserException(
            $"{setup.Description.Id}: {spec.BackEnd}: the guest's memory is in {memory.Count} pieces (a virtual NUMA node is one, another "
                + $"where its memory grows, another where it crosses 3 GiB), and a back end takes {VhostUserDevice.MostMemoryPieces}: give "
                + "the VM fewer virtual NUMA nodes");
    }
}
