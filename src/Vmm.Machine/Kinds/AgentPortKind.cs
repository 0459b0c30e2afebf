using Vmm.Devices.Virtio.Serial;

namespace Vmm.Machine.Kinds;

/// <summary>The port of the standard guest agent: <c>guestAgent</c>.</summary>
internal static class AgentPortKind
{
    internal static readonly DeviceKind Kind = new()
    {
        Name = "agent",
        Section = "guestAgent",
        Plan = spec => spec.GuestAgent ? [new DevicePlan("agent", spec.VirtioTransport)] : [],
        Build = _ => new VirtioSerial(),
    };
}
