using Vmm.Daemon.Inventory;

namespace Vmm.Daemon.Moves;

/// <summary>Where a move to another host stands, at the host that has the VM.</summary>
internal enum OutgoingStep
{
    /// <summary>The other host is asked whether it takes the VM. The VM runs here.</summary>
    Offered,

    /// <summary>Its memory is sent. The VM runs here.</summary>
    Copying,

    /// <summary>It stands still, and its disks are let go of; the other host was not asked to take it yet, so it may go on here.</summary>
    Resting,

    /// <summary>As before, and written: the other host may have been asked, so only its answer says where the VM is.</summary>
    Asking,

    /// <summary>It is the other host's. An end.</summary>
    Gone,

    /// <summary>It is here, as it was before. An end.</summary>
    Back,
}

/// <summary>What happens to it.</summary>
internal enum OutgoingEvent
{
    /// <summary>The other host takes the VM.</summary>
    Accepted,

    /// <summary>The VM stands still, and everything was sent.</summary>
    Rested,

    /// <summary>That the other host is about to be asked is on the disk.</summary>
    Written,

    /// <summary>The other host says that it has the VM.</summary>
    SaidCommitted,

    /// <summary>The other host says that it will never have the VM by this move.</summary>
    SaidAborted,

    /// <summary>Anything else went wrong, or somebody cancelled it.</summary>
    Failed,

    /// <summary>This daemon died, and another one came.</summary>
    Died,
}

/// <summary>Where a move from another host stands, at the host that gets the VM.</summary>
internal enum IncomingStep
{
    /// <summary>The name, the networks and the memory are the VM's, and there is a worker for it.</summary>
    Receiving,

    /// <summary>The sender asked for it: the VM is built with the disks, which the sender let go of.</summary>
    Building,

    /// <summary>It is this host's: that is on the disk. An end.</summary>
    Committed,

    /// <summary>It never will be. An end.</summary>
    Aborted,
}

/// <summary>What happens to it.</summary>
internal enum IncomingEvent
{
    /// <summary>The sender asks for the VM to be taken.</summary>
    Asked,

    /// <summary>The VM is built, and the decision is on the disk.</summary>
    Decided,

    /// <summary>It failed, took too long, or the sender gave it up.</summary>
    GivenUp,

    /// <summary>This daemon died, and another one came.</summary>
    Died,
}

/// <summary>
/// The two sides of a move between hosts as tables. What is not in them cannot happen; a test goes through everything that two daemons,
/// which may die at any instant, and messages that are lost or come twice can make of them: at no time both run the VM.
/// </summary>
internal static class MigrationSteps
{
    private static readonly Dictionary<(OutgoingStep, OutgoingEvent), OutgoingStep> s_outgoing = new()
    {
        [(OutgoingStep.Offered, OutgoingEvent.Accepted)] = OutgoingStep.Copying,
        [(OutgoingStep.Offered, OutgoingEvent.Failed)] = OutgoingStep.Back,
        [(OutgoingStep.Offered, OutgoingEvent.Died)] = OutgoingStep.Back,
        [(OutgoingStep.Copying, OutgoingEvent.Rested)] = OutgoingStep.Resting,
        [(OutgoingStep.Copying, OutgoingEvent.Failed)] = OutgoingStep.Back,
        [(OutgoingStep.Copying, OutgoingEvent.Died)] = OutgoingStep.Back,
        [(OutgoingStep.Resting, OutgoingEvent.Written)] = OutgoingStep.Asking,
        [(OutgoingStep.Resting, OutgoingEvent.Failed)] = OutgoingStep.Back,
        [(OutgoingStep.Resting, OutgoingEvent.Died)] = OutgoingStep.Back,
        [(OutgoingStep.Asking, OutgoingEvent.SaidCommitted)] = OutgoingStep.Gone,
        [(OutgoingStep.Asking, OutgoingEvent.SaidAborted)] = OutgoingStep.Back,
        [(OutgoingStep.Asking, OutgoingEvent.Died)] = OutgoingStep.Asking,
    };

    private static readonly Dictionary<(IncomingStep, IncomingEvent), IncomingStep> s_incoming = new()
    {
        [(IncomingStep.Receiving, IncomingEvent.Asked)] = IncomingStep.Building,
        [(IncomingStep.Receiving, IncomingEvent.GivenUp)] = IncomingStep.Aborted,
        [(IncomingStep.Receiving, IncomingEvent.Died)] = IncomingStep.Aborted,
        [(IncomingStep.Building, IncomingEvent.Decided)] = IncomingStep.Committed,
        [(IncomingStep.Building, IncomingEvent.GivenUp)] = IncomingStep.Aborted,
        [(IncomingStep.Building, IncomingEvent.Died)] = IncomingStep.Aborted,
        [(IncomingStep.Committed, IncomingEvent.Died)] = IncomingStep.Committed,
    };

    /// <summary>The step behind an event; false: it cannot happen there.</summary>
    internal static bool TryNext(OutgoingStep step, OutgoingEvent @event, out OutgoingStep next) =>
        s_outgoing.TryGetValue((step, @event), out next);

    /// <inheritdoc cref="TryNext(OutgoingStep, OutgoingEvent, out OutgoingStep)"/>
    internal static bool TryNext(IncomingStep step, IncomingEvent @event, out IncomingStep next) =>
        s_incoming.TryGetValue((step, @event), out next);

    /// <summary>The step behind an event.</summary>
    /// <exception cref="InvalidOperationException">It cannot happen there.</exception>
    internal static OutgoingStep Next(OutgoingStep step, OutgoingEvent @event) => TryNext(step, @event, out OutgoingStep next)
        ? next
        : throw new InvalidOperationException($"a move that is {step} cannot have {@event}");

    /// <inheritdoc cref="Next(OutgoingStep, OutgoingEvent)"/>
    internal static IncomingStep Next(IncomingStep step, IncomingEvent @event) => TryNext(step, @event, out IncomingStep next)
        ? next
        : throw new InvalidOperationException($"a move that is {step} cannot have {@event}");

    /// <summary>Where a move stands for a daemon that finds its record.</summary>
    internal static OutgoingStep Found(MoveRecord record) => Next(
        record.Step == MoveStep.Asking ? OutgoingStep.Asking : OutgoingStep.Copying, OutgoingEvent.Died);

    /// <summary>Where a move stands for a daemon that finds it, by what is decided.</summary>
    internal static IncomingStep Found(Decision? decision) => Next(
        decision == Decision.Committed ? IncomingStep.Committed : IncomingStep.Building, IncomingEvent.Died);
}
