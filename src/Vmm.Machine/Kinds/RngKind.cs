using Vmm.Devices.Virtio.Rng;

namespace Vmm.Machine.Kinds;

/// <summary>Random numbers: <c>rng</c>.</summary>
internal static class RngKind
{
    internal static readonly DeviceKind Kind = new()
    {
        Name = "rng",
        Section = "rng",
        Plan = spec => spec.Rng ? [new DevicePlan("rng", spec.VirtioTransport)] : [],
        Build = _ => new VirtioRng(),
    };
}
