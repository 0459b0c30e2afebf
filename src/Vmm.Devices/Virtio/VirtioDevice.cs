using Vmm.Interop;
using Vmm.Memory;
using Vmm.State;

namespace Vmm.Devices.Virtio;

/// <summary>
/// What a transport (virtio-pci, virtio-mmio) needs to know of a device, virtio 1.2. The transport owns negotiation, queues' addresses and
/// interrupts; the device owns what the buffers mean. Calls to one device never overlap.
/// </summary>
public abstract class VirtioDevice : IDisposable
{
    /// <summary>Who starts this device's threads; set before the first activation.</summary>
    public IIoThreads Threads { get; set; } = PlainIoThreads.Instance;

    /// <summary>Virtio device id (virtio 1.2 section 5): 2 block, 4 entropy, …</summary>
    public abstract ushort DeviceType { get; }

    /// <summary>Device feature bits offered, without the ring and transport bits, which the transport adds.</summary>
    public abstract ulong DeviceFeatures { get; }

    /// <summary>
    /// Device feature bits without which a driver cannot use the device: one that does not accept them never sees FEATURES_OK (3.1.1 step
    /// 6).
    /// </summary>
    public virtual ulong RequiredFeatures => 0;

    /// <summary>Greatest size of each queue; its length is the number of queues.</summary>
    public abstract IReadOnlyList<ushort> QueueSizes { get; }

    /// <summary>Memory that the driver reaches without queues (2.10). Only virtio-pci shows it, and only one region.</summary>
    public virtual IReadOnlyList<SharedMemoryRegion> SharedMemory => [];

    /// <summary>What its own threads ask of the kernel beyond what every thread does.</summary>
    public virtual SyscallNeeds ThreadNeeds => SyscallNeeds.None;

    /// <summary>What its registers make vCPU threads ask of the kernel.</summary>
    public virtual SyscallNeeds VcpuNeeds => SyscallNeeds.None;

    /// <summary>Length of the device-specific configuration space, in bytes.</summary>
    public abstract int ConfigLength { get; }

    /// <summary>Reads device configuration; bytes beyond it read as zero.</summary>
    public abstract void ReadConfig(int offset, Span<byte> data);

    /// <summary>Writes device configuration; writes to read-only fields are ignored.</summary>
    public virtual void WriteConfig(int offset, ReadOnlySpan<byte> data) { }

    /// <summary>
    /// The driver set DRIVER_OK: start serving the queues. Runs on a vCPU thread; I/O belongs on the device's own thread.
    /// </summary>
    public abstract void Activate(VirtioActivation activation);

    /// <summary>
    /// The driver reset the device (or it is being removed): stop serving, return only when no request is in flight and guest memory is no
    /// longer touched.
    /// </summary>
    public abstract void Reset();

    /// <summary>
    /// The same without blocking a vCPU for storage that hangs: begins the reset, or goes on with one, for as long as
    /// <paramref name="patience"/>. True when it
    /// is done; false when requests are in flight still, and it has to be called again.
    /// </summary>
    public virtual bool TryReset(TimeSpan patience)
    {
        Reset();
        return true;
    }

    /// <summary>
    /// Stops serving without a reset: nothing more is taken from the rings, and what was taken is complete or back in them. The device can
    /// be saved then, and goes on by <see cref="Resume"/>. Any thread but the device's; one call at a time, and none beside an activation
    /// or a reset.
    /// </summary>
    /// <param name="patience">How long requests in flight may take.</param>
    /// <returns>False when they take longer: it has to be called again, or <see cref="Resume"/>.</returns>
    public abstract bool TryHold(TimeSpan patience);

    /// <summary>Writes what the device knows beside its queues and features; it is held, or not in use. Changes nothing.</summary>
    public virtual void Save(StateWriter to) { }

    /// <summary>Takes a saved state, fresh. It counts for the next activation.</summary>
    /// <exception cref="StateException">It does not fit the device.</exception>
    public virtual void Restore(StateReader from) { }

    /// <summary>Ends <see cref="TryHold"/>, also one that did not come to its end.</summary>
    public abstract void Resume();

    /// <summary>What it works on now, in a few words for people; null: there is nothing to tell. Any thread.</summary>
    public virtual string? Work => null;

    /// <inheritdoc/>
    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Releases threads, descriptors and back ends; implies <see cref="Reset"/>.</summary>
    protected abstract void Dispose(bool disposing);
}

/// <summary>Everything a device gets when its driver is ready.</summary>
/// <param name="Memory">Guest RAM.</param>
/// <param name="Features">Feature bits the driver accepted.</param>
/// <param name="Queues">One per queue; null for a queue the driver did not enable.</param>
/// <param name="Interrupts">How to tell the driver.</param>
public sealed record VirtioActivation(GuestMemory Memory, ulong Features, IReadOnlyList<ActiveQueue?> Queues, IVirtioInterrupts Interrupts)
{
    /// <summary>Who starts threads.</summary>
    public IIoThreads Threads { get; init; } = PlainIoThreads.Instance;

    /// <summary>Shows the driver what was completed in an enabled queue, with an interrupt when it wants one.</summary>
    public void Publish(int index)
    {
        if (Queues[index]!.Queue.Publish())
        {
            Interrupts.SignalQueue(index);
        }
    }
}

/// <summary>A queue in use: its ring and the doorbell that the guest (through ioeventfd or the transport) rings.</summary>
/// <param name="Queue">The ring.</param>
/// <param name="Doorbell">Readable when the driver notified the queue.</param>
public sealed record ActiveQueue(Virtqueue Queue, EventFd Doorbell);

/// <summary>Interrupts towards the driver; safe from any thread, allocation-free.</summary>
public interface IVirtioInterrupts
{
    /// <summary>
    /// Used buffers are in queue <paramref name="queue"/> (call only when <see cref="Virtqueue"/> says the driver wants to know).
    /// </summary>
    void SignalQueue(int queue);

    /// <summary>
    /// The eventfd that is the interrupt of a queue: a kernel that is given it (vhost) reaches the guest without a thread of ours. Null
    /// where there is none; then <see cref="SignalQueue"/> passes on. Only from <see cref="VirtioDevice.Activate"/> and from
    /// <see cref="QueueTriggerChanged"/>; it holds until the reset.
    /// </summary>
    EventFd? QueueTrigger(int queue) => null;

    /// <summary>Called on a vCPU's thread when <see cref="QueueTrigger"/> of that queue may answer something else. One listener.</summary>
    Action<int>? QueueTriggerChanged
    {
        get => null;
        set { }
    }

    /// <summary>The configuration changed.</summary>
    void SignalConfigChanged();

    /// <summary>
    /// The driver broke the rules (a looped chain, an address outside RAM): the device sets DEVICE_NEEDS_RESET and tells the driver (virtio
    /// 1.2, 2.1.2).
    /// </summary>
    void SetNeedsReset(string reason);
}
