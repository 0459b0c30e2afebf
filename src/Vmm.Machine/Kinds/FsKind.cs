using Vmm.Devices.Virtio.Fs;
using Vmm.HostNet.Shares;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Machine.Kinds;

/// <summary>Folders of the host that the guest mounts: <c>shares</c>.</summary>
internal static class FsKind
{
    internal static readonly DeviceKind Kind = new()
    {
        Name = "fs",
        Section = "shares",
        Plan = spec => spec.Shares.Select((_, i) => new DevicePlan(IdOf(i), spec.VirtioTransport)),
        Build = Make,
    };

    /// <summary>Name of the shared folder of that number.</summary>
    internal static string IdOf(int number) => $"fs{number}";

    private static VirtioFs Make(DeviceSetup setup)
    {
        ShareSpec share = setup.Spec.Shares[setup.Index];
        List<MemoryExtent> memory = setup.Board.Memory.Extents;
        if (memory.Count > VirtioFs.MostMemoryPieces)
        {
            throw new HostShareException(
                $"shared folder {share.Path}: the guest's memory is in {memory.Count} pieces (a virtual NUMA node is one, another where "
                    + $"its memory grows, another where it crosses 3 GiB), and virtiofsd takes {VirtioFs.MostMemoryPieces}: give the VM "
                    + "fewer virtual NUMA nodes");
        }

        return new VirtioFs(
            setup.Description.Id, share.EffectiveTag, setup.Board.Resources.OpenShare(setup.Index, share), memory);
    }
}
