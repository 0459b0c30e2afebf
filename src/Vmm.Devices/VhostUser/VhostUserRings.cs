using System.Diagnostics;
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
    private static readonly TimeSpan s_busy = TimeSpan.FromMilliseconds(200); // for a driver that goes on asking

    private readonly VirtioActivation _activation;
    private readonly VhostUserLink _link;
    private readonly VhostUserRecord? _record;
    private readonly bool _inOrder;
    private readonly Action<int> _callChanged;
    private readonly EventFd[] _calls; // of queues without a trigger
    private readonly EventFd _silence = new(); // rung by nobody
    private readonly EventFd?[] _triggers; // of the transport
    private readonly bool[] _handed;
    private readonly ushort[] _counted; // used indexes up to which completed chains are counted
    private bool _recordCounts; // it has what a back end that is gone did not complete

    /// <summary>Makes it.</summary>
    /// <param name="activation">The rings.</param>
    /// <param name="link">Where back ends come from, and what they complete is counted.</param>
    /// <param name="inOrder">Back ends of the device complete what is in a ring in order.</param>
    /// <param name="callChanged">Called when <see cref="Call"/> of a ring is another one; any thread.</param>
    internal VhostUserRings(VirtioActivation activation, VhostUserLink link, bool inOrder, Action<int> callChanged)
    {
        (_activation, _link, _record, _inOrder, _callChanged) = (activation, link, link.Record, inOrder, callChanged);
        int count = activation.Queues.Count;
        (_calls, _triggers, _handed, _counted) = (new EventFd[count], new EventFd?[count], new bool[count], new ushort[count]);
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
        front.SetFeatures(_activation.Features & front.Features); // the others are the device's own
        front.SetMemory(memory);
        if (_record is not null)
        {
            if (!_recordCounts)
            {
                _record.Clear();
            }

            front.SetRecord(_record);
        }

        for (int i = 0; i < Count; i++)
        {
            if (_activation.Queues[i] is { } active)
            {
                _handed[i] = true; // also when it does not answer
                Virtqueue queue = active.Queue;
                queue.Ring.TryReadUsedIndex(out _counted[i]);
                front.Hand(new VhostUserRing(i, queue.Ring.Parts, queue.NextAvailable, active.Doorbell, Call(i), Error));
                active.Doorbell.Signal(); // what the driver made available before is looked at
            }
        }
    }

    /// <summary>Counts what a back end completed, often enough that no index goes round: it has 16 bits.</summary>
    internal void CountCompleted()
    {
        for (int i = 0; i < Count; i++)
        {
            if (_handed[i])
            {
                CountCompleted(i);
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
                Virtqueue queue = _activation.Queues[i]!.Queue;
                if (!_inOrder)
                {
                    WaitIdle(front, i);
                }

                ushort next = front.TakeBack(i);
                if (!_inOrder)
                {
                    WaitComplete(front, queue, next);
                }

                CountCompleted(i);
                queue.Restore(next, next); // nothing is in flight: what was taken was completed
                _handed[i] = false;
            }
        }

        _recordCounts = false;
    }

    /// <summary>
    /// Takes back the rings of a back end that is gone, to be served again from the used index on. With a record the next back end knows
    /// from it what was in flight. Without one: a back end that serves each ring in order leaves what lies between the used index and the
    /// available one; of any other only that nothing was in flight is sure.
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
            CountCompleted(i);
            Virtqueue queue = _activation.Queues[i]!.Queue;
            if (!queue.Ring.TryReadUsedIndex(out ushort used) || !queue.Ring.TryReadAvailableIndex(out ushort available))
            {
                problem = "the memory under a ring was unplugged";
            }
            else if (!IsKnown(i, queue, used, available))
            {
                problem = "its back end ended, and which requests it had not answered is not known";
            }

            queue.Restore(used, used);
        }

        _recordCounts = _record is not null;
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
        _silence.Dispose();
    }

    private void CountCompleted(int ring)
    {
        if (_activation.Queues[ring]!.Queue.Ring.TryReadUsedIndex(out ushort used))
        {
            _link.AddCompleted(unchecked((ushort)(used - _counted[ring])));
            _counted[ring] = used;
        }
    }

    private bool IsKnown(int ring, Virtqueue queue, ushort used, ushort available)
    {
        ushort pending = unchecked((ushort)(available - used));
        return pending <= queue.Size && (_record is not null ? _record.CountInFlight(ring, used) <= pending
            : _inOrder ? AreDistinct(queue, used, pending)
            : pending == 0);
    }

    // Some back ends stop at GET_VRING_BASE with requests at hand (qemu-storage-daemon 7.2), and give up what completes after it: they are
    // asked when nothing is in flight. They hear no doorbell meanwhile, so they take nothing more; how far they took is where they want to
    // hear the next one (2.7.10), if they keep to that.
    private void WaitIdle(VhostUserFrontEnd front, int ring)
    {
        RingView view = _activation.Queues[ring]!.Queue.Ring;
        bool tells = _record is null && (_activation.Features & front.Features & VirtioFeatures.EventIndex) != 0;
        if (!view.TryReadAvailableIndex(out ushort first))
        {
            return;
        }

        front.SetKick(ring, _silence);
        for (long begin = Stopwatch.GetTimestamp();
            view.TryReadUsedIndex(out ushort used) && view.TryReadAvailableIndex(out ushort available) && used != available;)
        {
            TimeSpan passed = Stopwatch.GetElapsedTime(begin);
            bool isTaken = tells && view.TryReadAvailableEvent(out ushort taken) && taken == used;
            if (isTaken || passed > front.StopPatience || (!tells && available != first && passed > s_busy))
            {
                return;
            }

            Pause(front);
        }
    }

    // What it took is complete when the used index says so; until then it writes to the guest's memory.
    private static void WaitComplete(VhostUserFrontEnd front, Virtqueue queue, ushort next)
    {
        for (long begin = Stopwatch.GetTimestamp(); queue.Ring.TryReadUsedIndex(out ushort used) && used != next;)
        {
            if (Stopwatch.GetElapsedTime(begin) > front.StopPatience)
            {
                throw new VhostUserException(
                    $"it gives a ring back at {next}, and completes nothing beyond {used} within {front.StopPatience.TotalSeconds:0.#} s");
            }

            Pause(front);
        }
    }

    private static void Pause(VhostUserFrontEnd front)
    {
        if (front.Look() == BackEndSign.Ended)
        {
            throw new VhostUserException("it ended");
        }

        Thread.Sleep(1);
    }

    private static bool AreDistinct(Virtqueue queue, ushort used, ushort pending)
    {
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
