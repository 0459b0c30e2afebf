using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Placement;

/// <summary>Whether a network device is given vhost-net.</summary>
public static class VhostChoice
{
    /// <summary>It is worth trying: wished, or there and nothing speaks against it.</summary>
    public static bool Wanted(NetSpec net) => net.Vhost switch
    {
        VhostUse.On => true,
        VhostUse.Off => false,
        _ => net.Limits is null && File.Exists(VhostNet.DevicePath),
    };

    /// <summary>The error of a wish that cannot be fulfilled.</summary>
    public static TapException Missing(NetSpec net, KernelException cause) =>
        new($"tap {net.Tap}: vhost: on, but {cause.Message}: load the module vhost_net, or say vhost: auto");
}
