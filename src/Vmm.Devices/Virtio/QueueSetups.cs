using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.Virtio;

/// <summary>
/// All queues of a transport: what their driver said about them, and the rings of the present activation. Under the lock of the transport.
/// </summary>
internal sealed class QueueSetups : IDisposable
{
    private readonly QueueSetup[] _queues;
    private ActiveQueue?[] _active = [];

    /// <summary>Makes them with their doorbells.</summary>
    /// <param name="sizes">Greatest size of each.</param>
    /// <exception cref="KernelException">Out of descriptors; none is left open.</exception>
    internal QueueSetups(IReadOnlyList<ushort> sizes)
    {
        _queues = new QueueSetup[sizes.Count];
        try
        {
            for (int i = 0; i < _queues.Length; i++)
            {
                _queues[i] = new QueueSetup(sizes[i]);
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Number of queues.</summary>
    internal int Count => _queues.Length;

    /// <summary>One of them.</summary>
    internal QueueSetup this[int queue] => _queues[queue];

    /// <summary>The rings of the enabled queues, at the indices where restored ones stopped.</summary>
    /// <returns>False with <paramref name="reason"/> when the driver's set-up is impossible.</returns>
    internal bool TryActivate(GuestMemory memory, ulong features, out IReadOnlyList<ActiveQueue?> queues, out string? reason)
    {
        ActiveQueue?[] active = new ActiveQueue?[_queues.Length];
        queues = active;
        reason = null;
        for (int i = 0; i < _queues.Length; i++)
        {
            QueueSetup setup = _queues[i];
            if (!setup.Enabled)
            {
                continue;
            }

            VirtqueueLayout layout = new(setup.Size, new(setup.Descriptors), new(setup.Driver), new(setup.Device));
            if (!Virtqueue.TryCreate(memory, layout, features, out Virtqueue? queue, out string? problem) || queue is null)
            {
                Release(active);
                reason = $"queue {i}: {problem}";
                return false;
            }

            if (setup.RestoredAt is { } at)
            {
                queue.Restore(at.NextAvailable, at.NextUsed);
                setup.RestoredAt = null;
            }

            active[i] = new ActiveQueue(queue, setup.Doorbell);
        }

        _active = active;
        return true;
    }

    /// <summary>As at first.</summary>
    internal void Reset()
    {
        Release(_active);
        _active = [];
        foreach (QueueSetup queue in _queues)
        {
            queue.Reset();
        }
    }

    /// <summary>The state for saving.</summary>
    internal IReadOnlyList<QueueSetupStateV1> Capture() =>
        [.. _queues.Select((queue, i) => queue.Capture(i < _active.Length ? _active[i]?.Queue : null))];

    /// <summary>Takes saved states, as many as there are queues.</summary>
    /// <exception cref="State.StateException">One does not fit.</exception>
    internal void Restore(IReadOnlyList<QueueSetupStateV1> states, int vectors)
    {
        for (int i = 0; i < _queues.Length; i++)
        {
            _queues[i].Restore(states[i], vectors, $"{VirtioTransportStateV1.Kind}: queue {i}");
        }
    }

    private static void Release(ActiveQueue?[] queues)
    {
        foreach (ActiveQueue? queue in queues)
        {
            queue?.Queue.Ring.Release();
        }
    }

    /// <summary>Closes the doorbells.</summary>
    public void Dispose()
    {
        foreach (QueueSetup? queue in _queues)
        {
            queue?.Doorbell.Dispose();
        }
    }
}
