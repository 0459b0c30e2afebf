using Vmm.Devices.Virtio.Pmem;
using Vmm.Interop;
using Vmm.Spec.Devices;

namespace Vmm.Machine.Kinds;

/// <summary>Persistent memory: an entry of <c>devices</c>.</summary>
internal static class PmemKind
{
    internal static readonly DeviceKind Kind = DeviceKind.OfDevices<PmemSpec>(
        "pmem", onRootBus: true, Make);

    private static VirtioPmem Make(DeviceSetup setup, PmemSpec spec, FileDescriptorHandle[] files)
    {
        VirtioPmem device = new(setup.Description.Id, files[0], spec.Path, spec.ReadOnly);
        setup.Board.Memory.Keep(device.Memory);
        return device;
    }
}
