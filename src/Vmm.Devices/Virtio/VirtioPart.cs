using System.Globalization;
using Vmm.Devices.Pci;
using Vmm.State;

namespace Vmm.Devices.Virtio;

/// <summary>A virtio device as a unit: its transport, its message vectors, and what the device itself knows.</summary>
/// <param name="id">Its name.</param>
/// <param name="transport">The transport with the device.</param>
/// <param name="vectors">Message vectors; null behind a register window without any.</param>
/// <param name="dependsOn">What it needs at work.</param>
public sealed class VirtioPart(PartId id, VirtioTransport transport, MsixTable? vectors, params IReadOnlyList<PartId> dependsOn)
    : IMachinePart
{
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(100); // at the deadline
    private bool _restored;

    /// <inheritdoc/>
    public PartId Id => id;

    /// <inheritdoc/>
    public IReadOnlyList<PartId> DependsOn => dependsOn;

    /// <summary>
    /// Completes what was taken or gives it back to the rings, whichever way it comes to rest: nothing in flight has a saved form.
    /// </summary>
    public ValueTask QuiesceAsync(Quiesce mode, Deadline deadline)
    {
        while (!transport.TryHold(s_look))
        {
            deadline.Token.ThrowIfCancellationRequested();
        }

        return ValueTask.CompletedTask;
    }

    /// <inheritdoc/>
    public void Resume()
    {
        transport.Resume();
        if (_restored)
        {
            _restored = false;
            transport.Nudge();
        }
    }

    /// <inheritdoc/>
    public void Save(StateWriter to)
    {
        to.Write(DeviceStates.VirtioTransport, transport.Capture());
        if (vectors is not null)
        {
            to.Write(DeviceStates.Msix, vectors.Capture());
        }

        transport.Device.Save(to);
    }

    /// <inheritdoc/>
    public void Restore(StateReader from)
    {
        transport.Restore(from.Read(DeviceStates.VirtioTransport));
        vectors?.Restore(from.Read(DeviceStates.Msix));
        transport.Device.Restore(from);
        _restored = true;
    }

    /// <inheritdoc/>
    public string Describe() => string.Create(
        CultureInfo.InvariantCulture,
        $"virtio device {transport.Device.DeviceType}, {transport.QueueCount} queues, status 0x{transport.Status:x2}{Work}");

    private string Work => transport.Device.Work is { } work ? ", " + work : "";
}
