using Vmm.Devices.Virtio;
using Vmm.Interop;
using Vmm.Memory;

namespace Vmm.Devices.VhostUser;

/// <summary>
/// The rings of an activation as a back end gets them: with the eventfds that ring it, and those that it rings. One thread, but for what
/// follows the transport's.
/// </summary>
internal sealed class VhostUserRings : IDisposable
{
    // What the back end must do as the driver expects it.
    private const ulong RingFeatures = VirtioFeatures.Transport;

    private readonly VirtioActivation _activation;
    private readonly Action<int> _callChanged;
    private readonly EventFd[] _calls; // of queues without a trigger
    private readonly EventFd?[] _triggers; // of the transport
    private readonly bool[] _handed;

    /// <summary>Makes it.</summary>
    /// <param name="activation">The rings.</param>
    /// <param name="callChanged">Called when <see cref="Call"/> of a ring is another one; any thread.</param>
    internal VhostUserRings(VirtioActivation activation, Action<int> callChanged)
    {
        (_activation, _callChanged) = (activation, callChanged);
        int count = activation.Queues.Count;
        (_calls, _triggers, _handed) = (new EventFd[count], new EventFd?[count], new bool[count]);
        for (int i = 0; i < count; i++)
        {
            _calls[i] = new EventFd();
        }
    }

    /// <summary>How many there are.</summary>
    internal int Count => _calls.Length;

    /// <summary>Rung by a back end whose driver broke a ring.</summary>
    internal EventFd Error { get; } = new();

    /// <summary>A back end has one of them.</summary>
    internal bool AnyHanded => Array.Exists(_handed, handed => handed);

    /// <summary>What a back end rings for a queue without a trigger.</summary>
    internal EventFd OwnCall(int queue) => _calls[queue];

    /// <summary>What a back end rings for a queue.</summary>
    internal EventFd Call(int queue) => Volatile.Read(ref _triggers[queue]) ?? _calls[queue];

    /// <summary>Takes the interrupts from the transport, now and when they change. From the activation.</summary>
    internal void Follow()
    {
        for (int i = 0; i < _triggers.Length; i++)
        {
            _triggers[i] = _activation.Interrupts.QueueTrigger(i);
        }

        _activation.Interrupts.QueueTriggerChanged = queue =>
        {
            if (queue < _triggers.Length)
            {
                Volatile.Write(ref _triggers[queue], _activation.Interrupts.QueueTrigger(queue));
                _callChanged(queue);
            }
        };
    }

    /// <summary>The transport's changes do not count any more.</summary>
    internal void Unfollow() => _activation.Interrupts.QueueTriggerChanged = null;

    /// <summary>Gives all of them to a back end.</summary>
    /// <exception cref="VhostUserException">It may have some of them, or none.</exception>
    internal void Hand(VhostUserFrontEnd front, ReadOnlySpan<MemoryExtent> memory)
    {
        front.SetFeatures(_activation.Features & RingFeatures);
        front.SetMemory(memory);
        for (int i = 0; i < Count; i++)
        {
            if (_activation.Queues[i] is { } active)
            {
                _handed[i] = true; // also when it does not answer
                Virtqueue queue = active.Queue;
                front.Hand(new VhostUserRing(i, queue.Ring.Parts, queue.NextAvailable, active.Doorbell, Call(i), Error));
                active.Doorbell.Signal(); // what the driver made available before is looked at
            }
        }
    }

    /// <summary>Takes all of them back, where the back end stopped.</summary>
    /// <exception cref="VhostUserException">It may have some of them still.</exception>
    internal void TakeBack(VhostUserFrontEnd front)
    {
        for (int i = 0; i < Count; i++)
        {
            if (_handed[i])
            {
                ushort next = front.TakeBack(i);
                _activation.Queues[i]!.Queue.Restore(next, next); // nothing is in flight: what was taken was completed
                _handed[i] = false;
            }
        }
    }

    /// <summary>
    /// Takes back the rings of a back end that is gone. What it took and did not complete is to be served again: it serves each ring in
    /// order, so that is what lies between the used index and the available one. Where the same chain is there twice, it did not.
    /// </summary>
    /// <param name="problem">Why they cannot be served any more.</param>
    internal bool TryRecover(out string problem)
    {
        problem = "";
        for (int i = 0; i < Count && problem.Length == 0; i++)
        {
            if (!_handed[i])
            {
                continue;
            }

            _handed[i] = false;
            Virtqueue queue = _activation.Queues[i]!.Queue;
            if (!queue.Ring.TryReadUsedIndex(out ushort used) || !queue.Ring.TryReadAvailableIndex(out ushort available))
            {
                problem = "the memory under a ring was unplugged";
            }
            else if (!AreDistinct(queue, used, available))
            {
                problem = "its back end ended, and which requests it had not answered is not known";
            }

            queue.Restore(used, used);
        }

        return problem.Length == 0;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (EventFd call in _calls)
        {
            call.Dispose();
        }

        Error.Dispose();
    }

    private static bool AreDistinct(Virtqueue queue, ushort used, ushort available)
    {
        ushort pending = unchecked((ushort)(available - used));
        if (pending > queue.Size)
        {
            return false;
        }

        HashSet<ushort> heads = [];
        for (ushort i = 0; i < pending; i++)
        {
            if (!queue.Ring.TryReadAvailable(unchecked((ushort)(used + i)), out ushort head) || !heads.Add(head))
            {
                return false;
            }
        }

        return true;
    }
}
