using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Virtio.Rng;

/// <summary>A virtio entropy device (virtio 1.2 section 5.4): fills buffers from the host's random generator on a thread of its own.</summary>
public sealed class VirtioRng : VirtioDevice
{
    /// <summary>Most bytes given for one chain; a chain asks for what it likes, 5.4.6.1 lets the device return less.</summary>
    public const int MaxBytesPerChain = 64 * 1024;

    private readonly string _name;
    private QueueThread? _thread;

    /// <summary>Creates the device; <paramref name="name"/> names its thread.</summary>
    public VirtioRng(string name = "rng") => _name = name;

    /// <inheritdoc/>
    public override ushort DeviceType => 4;

    /// <inheritdoc/>
    public override ulong DeviceFeatures => 0;

    /// <inheritdoc/>
    public override IReadOnlyList<ushort> QueueSizes { get; } = [64];

    /// <inheritdoc/>
    public override int ConfigLength => 0;

    /// <inheritdoc/>
    public override void ReadConfig(int offset, Span<byte> data) => data.Clear();

    /// <inheritdoc/>
    public override void Activate(VirtioActivation activation)
    {
        Reset();
        if (activation.Queues.Count == 0 || activation.Queues[0] is not { } queue)
        {
            return;
        }

        _thread = QueueThread.Start(_name, activation, new Service(activation, queue));
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _thread?.Dispose();
        _thread = null;
    }

    /// <summary>Serves what is in the ring now. False when the driver broke it.</summary>
    internal static bool ServeRing(GuestMemory memory, ActiveQueue active, IVirtioInterrupts interrupts)
    {
        Virtqueue ring = active.Queue;
        bool sound = true;
        for (int budget = ring.Size; budget > 0 && sound; budget--)
        {
            TakeResult taken = ring.TryTake(out ushort head);
            if (taken == TakeResult.Empty)
            {
                break;
            }

            uint written = 0;
            sound = taken == TakeResult.Taken && Fill(memory, ring.Walk(head), out written);
            if (sound)
            {
                ring.Complete(head, written);
            }
        }

        if (ring.Publish())
        {
            interrupts.SignalQueue(0);
        }

        return sound;
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            Reset();
        }
    }

    private static bool Fill(GuestMemory memory, ChainWalker chain, out uint written)
    {
        written = 0;
        ChainStep step;
        while ((step = chain.MoveNext()) == ChainStep.Buffer)
        {
            VirtioBuffer buffer = chain.Current;
            int length = (int)Math.Min(buffer.Length, MaxBytesPerChain - written);
            // 5.4.6: buffers are device-writable; a readable one is skipped. A short answer ends at the first buffer not filled.
            if (buffer.Writable && length > 0 && memory.TryGetSpan(buffer.Address, length, out Span<byte> span))
            {
                HostRandom.Fill(span);
                written += (uint)length;
            }
        }

        return step == ChainStep.End;
    }

    private sealed class Service(VirtioActivation activation, ActiveQueue queue) : IQueueService
    {
        public QueueProgress Serve(QueueThread thread) =>
            !ServeRing(activation.Memory, queue, activation.Interrupts) ? QueueProgress.Broken
            : queue.Queue.EnableNotifications() ? QueueProgress.Again
            : QueueProgress.Idle;
    }
}
