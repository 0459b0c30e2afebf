using Vmm.Devices.Virtio;
using Vmm.Spec;

namespace Vmm.Machine.Run;

/// <summary>The limits of a spec as devices take them.</summary>
internal static class RateLimits
{
    internal static RateLimit Of(LimitsSpec limits) =>
        new(limits.Bandwidth?.Bytes ?? 0, (ulong)(limits.Operations ?? 0), limits.Burst?.Bytes ?? 0, (ulong)(limits.OperationsBurst ?? 0));
}
