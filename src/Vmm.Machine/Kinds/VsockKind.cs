using Vmm.Devices.Virtio.Vsock;

namespace Vmm.Machine.Kinds;

/// <summary>Sockets between guest and host: <c>vsock</c>.</summary>
internal static class VsockKind
{
    internal static readonly DeviceKind Kind = new()
    {
        Name = "vsock",
        Section = "vsock",
        Plan = spec => spec.Vsock is null ? [] : [new DevicePlan("vsock", spec.VirtioTransport)],
        Build = setup => new VirtioVsock(
            (ulong)setup.Spec.Vsock!.Cid,
            setup.Spec.Vsock.Path,
            dial: setup.Board.Resources.DialHost,
            listener: setup.Board.Resources.TakeVsock()),
    };
}
