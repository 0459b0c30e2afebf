using Vmm.Devices.Virtio.Blk;
using Vmm.Machine.Hotplug;
using Vmm.Storage;

namespace Vmm.Machine.Run;

/// <summary>A disk whose requests the host failed, and which waits (<see cref="DiskWaits"/>).</summary>
/// <param name="Name">The device.</param>
/// <param name="Path">Its file.</param>
/// <param name="Fault">What it waits for.</param>
/// <param name="CanGoOn">Looks whether what it waits for is there again.</param>
internal sealed record WaitingDisk(string Name, string Path, DiskStatus Fault, Func<bool> CanGoOn)
{
    /// <summary>Those of a machine that wait now.</summary>
    internal static IReadOnlyList<WaitingDisk> Of(DeviceSet devices) =>
    [
        .. from device in devices.All
           let disk = device.Device as VirtioBlk
           let fault = disk?.WaitsFor ?? DiskStatus.Ok
           where fault != DiskStatus.Ok
           select new WaitingDisk(device.Id, device.DiskSpec?.Path ?? "", fault, () => disk!.CanGoOn),
    ];
}
