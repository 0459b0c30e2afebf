namespace Vmm.Io;

/// <summary>
/// Work that an <see cref="IoLoop"/> does round after round: the queues of a device. Every call comes from the loop's thread.
/// </summary>
public interface IIoService
{
    /// <summary>True when nothing that it began is in flight: a loop that was told to stop ends then.</summary>
    bool IsDrained { get; }

    /// <summary>A round begins: completions are delivered next, then <see cref="Serve"/> is called.</summary>
    void BeginRound();

    /// <summary>Shows what is complete and takes new work. True when there was any.</summary>
    bool Serve();

    /// <summary>There was nothing in this round, but looking again for a while can find something. False to sleep at once.</summary>
    bool MayLook => true;

    /// <summary>The loop slept for so many ticks of <see cref="System.Diagnostics.Stopwatch"/>.</summary>
    void Slept(long ticks) { }

    /// <summary>The loop is about to sleep: asks for doorbells. True when work arrived meanwhile and the loop has to stay awake.</summary>
    bool PrepareSleep();

    /// <summary>The loop was told to stop: from now on completions are delivered, and <see cref="Serve"/> is not called any more.</summary>
    void Stopping();
}
