using Vmm.Contracts.Control;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Which removals a worker may tell of: each name once, since no other device of the same run gets it, and no more than there were devices.
/// Thread-safe.
/// </summary>
internal sealed class RemovalEvents
{
    private readonly Lock _gate = new();
    private readonly HashSet<string> _told = new(StringComparer.Ordinal);
    private int _most = WorkerCheck.MostDevices;

    /// <summary>So many devices more were plugged in.</summary>
    internal void Expect(int devices)
    {
        lock (_gate)
        {
            _most += devices;
        }
    }

    /// <summary>True when the event can be: it counts.</summary>
    internal bool Admits(RemovalBody removal)
    {
        lock (_gate)
        {
            return WorkerCheck.IsDeviceName(removal.Device) && Enum.IsDefined(removal.Outcome) && removal.Outcome != DeviceRemoval.Refused
                && _told.Count < _most && _told.Add(removal.Device);
        }
    }
}
