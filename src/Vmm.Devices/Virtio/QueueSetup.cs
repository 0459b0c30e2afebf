using Vmm.Interop;
using Vmm.State;

namespace Vmm.Devices.Virtio;

/// <summary>What the driver said about one queue.</summary>
public sealed class QueueSetup(ushort max)
{
    /// <summary>Greatest size.</summary>
    public ushort Max { get; } = max;

    /// <summary>Size the driver chose.</summary>
    public ushort Size { get; set; } = max;

    /// <summary>The driver enabled it.</summary>
    public bool Enabled { get; set; }

    /// <summary>GPA of the descriptor table.</summary>
    public ulong Descriptors { get; set; }

    /// <summary>GPA of the available ring.</summary>
    public ulong Driver { get; set; }

    /// <summary>GPA of the used ring.</summary>
    public ulong Device { get; set; }

    /// <summary>MSI-X vector; 0xFFFF is none.</summary>
    public int Vector { get; set; } = 0xFFFF;

    /// <summary>Where a restored queue goes on at its next activation; null: at its start.</summary>
    internal VirtqueueStateV1? RestoredAt { get; set; }

    /// <summary>The doorbell.</summary>
    public EventFd Doorbell { get; } = new();

    internal void Reset()
    {
        Size = Max;
        Enabled = false;
        Descriptors = Driver = Device = 0;
        Vector = 0xFFFF;
        RestoredAt = null;
    }

    internal QueueSetupStateV1 Capture(Virtqueue? active) => new()
    {
        Size = Size,
        Enabled = Enabled,
        Descriptors = Descriptors,
        Driver = Driver,
        Device = Device,
        Vector = (ushort)Vector,
        Indices = active?.Capture() ?? RestoredAt,
    };

    /// <summary>Takes a saved state.</summary>
    /// <param name="state">The state.</param>
    /// <param name="vectors">How many message vectors there are.</param>
    /// <param name="name">Of the queue, for errors.</param>
    internal void Restore(QueueSetupStateV1 state, int vectors, string name)
    {
        if (state.Size > Max)
        {
            throw new StateException($"{name}: its size is {state.Size}, here it has at most {Max}");
        }

        if (state.Vector != 0xFFFF && state.Vector >= vectors)
        {
            throw new StateException($"{name}: its vector is {state.Vector}, there are {vectors}");
        }

        (Size, Enabled, Vector) = (state.Size, state.Enabled, state.Vector);
        (Descriptors, Driver, Device) = (state.Descriptors, state.Driver, state.Device);
        RestoredAt = state.Indices;
    }
}
