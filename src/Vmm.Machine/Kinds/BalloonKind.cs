using Vmm.Devices.Virtio.Balloon;
using Vmm.Spec;

namespace Vmm.Machine.Kinds;

/// <summary>The memory balloon: <c>balloon</c>.</summary>
internal static class BalloonKind
{
    internal static readonly DeviceKind Kind = new()
    {
        Name = "balloon",
        Section = "balloon",
        Plan = spec => spec.Balloon is null ? [] : [new DevicePlan("balloon", spec.VirtioTransport)],
        Build = setup => Make(setup.Spec.Balloon!),
    };

    private static VirtioBalloon Make(BalloonSpec spec) => new(new VirtioBalloonOptions
    {
        TargetBytes = spec.Target,
        DeflateOnOom = spec.DeflateOnOom,
        FreePageReporting = spec.FreePageReporting,
        StatisticsInterval = TimeSpan.FromSeconds(spec.StatsInterval),
    });
}
