using Vmm.Devices.Virtio.Console;
using Vmm.Machine.Build;
using Vmm.Machine.Run;
using Vmm.Spec;

namespace Vmm.Machine.Kinds;

/// <summary>The virtio console: <c>console</c>.</summary>
internal static class ConsoleDeviceKind
{
    internal static readonly DeviceKind Kind = new()
    {
        Name = "console",
        Section = "console",
        Plan = spec => spec.Console == ConsoleKind.Serial ? [] : [new DevicePlan("console", spec.VirtioTransport)],
        Build = setup => Make(setup.Board),
    };

    private static VirtioConsole Make(Board board)
    {
        VirtioConsole device = new(new ConsoleSink(board.Console));
        board.Console.OnResize(device.Resize);
        return device;
    }
}
