using System.Diagnostics;
using Vmm.Devices.Virtio;

namespace Vmm.Machine.Hotplug;

/// <summary>
/// The devices of a machine that is paused: they take nothing from their rings, and what was taken is complete or back in them. No vCPU
/// runs. One call at a time.
/// </summary>
/// <param name="devices">The devices.</param>
internal sealed class DeviceRest(DeviceSet devices)
{
    /// <summary>Brings every device to rest.</summary>
    /// <param name="patience">How long all of them together may take.</param>
    /// <returns>False when requests are in flight still, of storage that hangs: those devices take nothing new, and end what they
    /// have.</returns>
    internal bool TryHold(TimeSpan patience)
    {
        long begin = Stopwatch.GetTimestamp();
        bool all = true;
        foreach (VirtioTransport transport in Transports)
        {
            TimeSpan left = patience - Stopwatch.GetElapsedTime(begin);
            all &= transport.TryHold(left > TimeSpan.Zero ? left : TimeSpan.Zero);
        }

        return all;
    }

    /// <summary>Lets them go on where they were.</summary>
    internal void Resume()
    {
        foreach (VirtioTransport transport in Transports)
        {
            transport.Resume();
        }
    }

    private IEnumerable<VirtioTransport> Transports
    {
        get
        {
            foreach (AttachedDevice device in devices.All)
            {
                if (devices.Slots.Find(device) is { } found)
                {
                    yield return found.Transport;
                }
            }
        }
    }
}
