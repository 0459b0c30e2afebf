namespace Vmm.State;

/// <summary>How a unit comes to rest.</summary>
public enum Quiesce
{
    /// <summary>What was taken from the guest is finished first; nothing in flight has a saved form.</summary>
    Drain,

    /// <summary>What was taken is kept in order, or given back to the ring, and goes on after <see cref="IMachinePart.Resume"/>.</summary>
    Hold,
}

/// <summary>
/// A unit: a part of a machine that has state. The <see cref="UnitRegistry"/> calls it, one operation after the other; only
/// <see cref="Describe"/> comes at any moment, from any thread.
/// </summary>
public interface IMachinePart
{
    /// <summary>Its name here and in a saved state.</summary>
    PartId Id { get; }

    /// <summary>What it needs at work: quiesced after this one, restored and resumed before it.</summary>
    IReadOnlyList<PartId> DependsOn { get; }

    /// <summary>
    /// Brings it to rest: when the task ends, it touches neither guest memory nor its resources, and its state changes no more. It gives up
    /// when the deadline's token is set. <see cref="Resume"/> follows in any case, also while this one has not ended.
    /// </summary>
    ValueTask QuiesceAsync(Quiesce mode, Deadline deadline);

    /// <summary>Goes on from rest, or takes an unfinished <see cref="QuiesceAsync"/> back.</summary>
    void Resume();

    /// <summary>Writes its state. Changes nothing: it can be repeated, or thrown away.</summary>
    void Save(StateWriter to);

    /// <summary>Takes a saved state, into a fresh unit at rest. The state is untrusted.</summary>
    /// <exception cref="StateException">It does not fit.</exception>
    void Restore(StateReader from);

    /// <summary>What it does right now, in a few words. Waits for nothing that another operation holds.</summary>
    string Describe();
}
