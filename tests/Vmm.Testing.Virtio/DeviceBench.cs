using System.Buffers.Binary;
using Vmm.Devices.Virtio;
using Xunit;

namespace Vmm.Testing.Virtio;

/// <summary>What a device does with the chains of a queue.</summary>
public enum QueueRole
{
    /// <summary>Takes and answers them as they come.</summary>
    Served,

    /// <summary>Answers them once the host has something for them (<see cref="DeviceBench.Prompt"/>).</summary>
    Prompted,

    /// <summary>
    /// Never touches them: the queue of a feature that is not offered, of a pair not in use, of events that do not happen.
    /// </summary>
    Ignored,
}

/// <summary>
/// A device of the list that the generic cases run over: how it is made, and what a sound request is on each of its queues.
/// </summary>
public abstract class DeviceBench : IDisposable
{
    public abstract VirtioDevice Device { get; }

    /// <summary>Features a driver must accept.</summary>
    public virtual ulong Needed => 0;

    /// <summary>It can be saved.</summary>
    public virtual bool IsSaved => true;

    public abstract QueueRole Role(int queue);

    /// <summary>Requests on a queue use up, or are used for, those of others: none may wait there meanwhile.</summary>
    public virtual bool ServesOthers(int queue) => false;

    /// <summary>A sound request: writes what the device reads, names the pieces.</summary>
    public abstract Piece[] Good(DeviceGuest guest, int queue);

    /// <summary>The host has something for a queue that is <see cref="QueueRole.Prompted"/>.</summary>
    public virtual void Prompt(DeviceGuest guest, int queue) { }

    /// <summary>The answer to <see cref="Good"/>.</summary>
    public virtual void Check(DeviceGuest guest, int queue, uint written) => Assert.Equal(0u, written);

    /// <summary>One sound request on a queue, answered.</summary>
    public void Serve(DeviceGuest guest, int queue)
    {
        int head = guest.Post(queue, Good(guest, queue));
        Answered(guest, queue, head);
    }

    /// <summary>The sound request with this head is answered.</summary>
    public void Answered(DeviceGuest guest, int queue, int head)
    {
        if (Role(queue) == QueueRole.Prompted)
        {
            Prompt(guest, queue);
        }

        (uint used, uint written) = guest.WaitUsed(queue);
        Assert.Equal((uint)head, used);
        Check(guest, queue, written);
    }

    /// <summary>A reset, a new start, and a sound request on every queue: whatever was before, the device works.</summary>
    public void Heal(DeviceGuest guest)
    {
        guest.Ram.Cut(null);
        guest.PlanAnew();
        guest.Port.Status = 0;
        Assert.Equal(0, guest.Port.Status);
        guest.Features = guest.Port.Offered;
        guest.Start();
        Assert.Equal(15, guest.Port.Status);
        ServeAll(guest);
    }

    /// <summary>A sound request on every queue that is served.</summary>
    public void ServeAll(DeviceGuest guest)
    {
        for (int queue = 0; queue < guest.Queues; queue++)
        {
            if (Role(queue) != QueueRole.Ignored)
            {
                Serve(guest, queue);
            }
        }
    }

    public void Dispose()
    {
        Device.Dispose();
        CleanUp();
        GC.SuppressFinalize(this);
    }

    /// <summary>What is left besides the device.</summary>
    protected virtual void CleanUp() { }

    protected static void Put32(DeviceGuest guest, ulong at, uint value) =>
        BinaryPrimitives.WriteUInt32LittleEndian(guest.At(at, 4), value);

    protected static void Put64(DeviceGuest guest, ulong at, ulong value) =>
        BinaryPrimitives.WriteUInt64LittleEndian(guest.At(at, 8), value);
}
