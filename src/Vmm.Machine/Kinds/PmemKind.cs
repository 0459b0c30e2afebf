using Vmm.Devices.Virtio.Pmem;
using Vmm.Spec.Devices;

namespace Vmm.Machine.Kinds;

/// <summary>Persistent memory: an entry of <c>devices</c>.</summary>
internal static class PmemKind
{
    internal static readonly DeviceKind Kind = DeviceKind.OfDevices<PmemSpec>(
        "pmem", onRootBus: true, (id, spec, files) => new VirtioPmem(id, files[0], spec.Path, spec.ReadOnly));
}
