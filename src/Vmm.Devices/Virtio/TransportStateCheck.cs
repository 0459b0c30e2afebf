using Vmm.State;

namespace Vmm.Devices.Virtio;

/// <summary>Whether a saved transport fits a device.</summary>
internal static class TransportStateCheck
{
    /// <exception cref="StateException">It does not.</exception>
    internal static void Require(VirtioTransportStateV1 state, int queues, ulong offered, int vectors)
    {
        if (state.Queues.Count != queues)
        {
            throw new StateException($"{VirtioTransportStateV1.Kind}: it has {state.Queues.Count} queues, the device {queues}");
        }

        ulong missing = state.DriverFeatures & ~offered;
        if ((state.Status & VirtioTransport.StatusFeaturesOk) != 0 && missing != 0)
        {
            throw new StateException(
                $"{VirtioTransportStateV1.Kind}: the driver uses features 0x{missing:x} that the device does not offer here");
        }

        if (state.ConfigVector != 0xFFFF && state.ConfigVector >= vectors)
        {
            throw new StateException(
                $"{VirtioTransportStateV1.Kind}: the configuration's vector is {state.ConfigVector}, there are {vectors}");
        }
    }
}
