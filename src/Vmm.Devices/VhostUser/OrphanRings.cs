using Vmm.Devices.Virtio;
using Vmm.Io;

namespace Vmm.Devices.VhostUser;

/// <summary>What <see cref="OrphanRings.Serve"/> comes to.</summary>
internal enum OrphanStep
{
    /// <summary>What could be answered is.</summary>
    Served,

    /// <summary>The driver broke a ring or a chain.</summary>
    Malformed,

    /// <summary>A back end may have the rings.</summary>
    MayHand,
}

/// <summary>
/// Serves the rings of an activation here, while no back end knows of them. Without a handler nothing is answered: the rings wait for the
/// next back end as they are. Of the loop's thread.
/// </summary>
internal sealed class OrphanRings(VirtioActivation activation, IOrphanHandler? handler, IoLoop loop, Action wake)
{
    private readonly List<Doorbell> _doorbells = []; // the guest's, while nobody else has them
    private RingPump?[] _pumps = [];

    /// <summary>Takes chains from here on, and hears the guest's doorbells.</summary>
    internal void Begin()
    {
        End();
        if (handler is null)
        {
            wake(); // a back end may be there already
            return;
        }

        _pumps = new RingPump?[activation.Queues.Count];
        for (int i = 0; i < _pumps.Length; i++)
        {
            if (activation.Queues[i] is { } queue)
            {
                _pumps[i] = new RingPump(activation, i, handler, handler.MostReadable, handler.MostWritable) { Wake = wake };
                _doorbells.Add(loop.Watch(queue.Doorbell, rung: null));
                activation.Interrupts.SignalQueue(i); // what was completed last may not have been told
            }
        }

        wake();
    }

    /// <summary>Takes none any more; those at hand are in their rings.</summary>
    internal void End()
    {
        GiveBack();
        _pumps = [];
        Unwatch();
    }

    /// <summary>Puts back what is at hand, for a hold.</summary>
    internal void GiveBack()
    {
        foreach (RingPump? pump in _pumps)
        {
            pump?.GiveBack();
        }
    }

    /// <summary>Hears no doorbell any more.</summary>
    internal void Unwatch()
    {
        _doorbells.ForEach(loop.Unwatch);
        _doorbells.Clear();
    }

    /// <summary>Answers what is there.</summary>
    /// <param name="hasBackEnd">A back end is there.</param>
    internal OrphanStep Serve(bool hasBackEnd)
    {
        if (handler is null)
        {
            return hasBackEnd ? OrphanStep.MayHand : OrphanStep.Served;
        }

        handler.MayBegin = hasBackEnd;
        return !Array.TrueForAll(_pumps, pump => pump?.Serve() ?? true) ? OrphanStep.Malformed
            : handler.TakeBegins() ? OrphanStep.MayHand
            : OrphanStep.Served;
    }

    /// <summary>Asks for the doorbells; true when something arrived meanwhile.</summary>
    internal bool PrepareSleep()
    {
        bool arrived = false;
        foreach (RingPump? pump in _pumps)
        {
            arrived |= pump?.PrepareSleep() ?? false;
        }

        return arrived;
    }
}
