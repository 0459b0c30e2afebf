using Vmm.Devices.Virtio.Blk;
using Vmm.Machine.Build;
using Vmm.Machine.Run;
using Vmm.Spec;
using Vmm.Storage;

namespace Vmm.Machine.Kinds;

/// <summary>Disks: <c>disks</c>.</summary>
internal static class BlkKind
{
    internal const string Name = "blk";

    internal static readonly DeviceKind Kind = new()
    {
        Name = Name,
        Section = "disks",
        ComesAndGoes = true,
        Plan = spec => spec.Disks.Select((disk, i) => new DevicePlan(IdOf(i), disk.Transport ?? spec.VirtioTransport, disk.Vnode)),
        Build = setup =>
        {
            DiskSpec disk = setup.Spec.Disks[setup.Index];
            return Make(setup.Board, setup.Description.Id, disk, setup.Board.Resources.OpenDisk(setup.Index, disk));
        },
    };

    /// <summary>Name of the disk of that number, counted from the start of the machine.</summary>
    internal static string IdOf(int number) => $"disk{number}";

    /// <summary>The device in front of an opened disk, which is closed when that fails.</summary>
    internal static VirtioBlk Make(Board board, string id, DiskSpec disk, IDiskBackend backend)
    {
        VirtioBlk device;
        try
        {
            device = new VirtioBlk(
                backend,
                DiskFront.Options(id, disk, board.Spec.Cpus),
                status => board.DiskFaults.Report(id, disk.Path, status),
                _ => board.DiskStalls.Report());
        }
        catch
        {
            backend.Dispose();
            throw;
        }

        if (disk.Limits is { } limits)
        {
            device.SetLimit(RateLimits.Of(limits));
        }

        return device;
    }
}
