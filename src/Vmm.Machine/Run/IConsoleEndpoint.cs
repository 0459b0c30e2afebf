namespace Vmm.Machine.Run;

/// <summary>
/// The far side of the guest's serial port: a terminal, a pipe, a test. The machine calls <see cref="Write"/> from vCPU threads and runs
/// one thread of its own that sits in <see cref="Read"/>.
/// </summary>
public interface IConsoleEndpoint
{
    /// <summary>
    /// Takes guest output; keeps no reference to the span. May block when the reader is slow. Never throws: output nobody can take is
    /// dropped.
    /// </summary>
    void Write(ReadOnlySpan<byte> output);

    /// <summary>
    /// Waits for input to the guest. 0 means there will be no more; the caller must stop reading then. -1: it was interrupted.
    /// </summary>
    int Read(Span<byte> input);

    /// <summary>
    /// Takes what is to hear of the size of the terminal, in columns and rows: now, when it is known, and after each change. Any thread.
    /// Most have none.
    /// </summary>
    void OnResize(Action<ushort, ushort> resized)
    {
    }

    /// <summary>
    /// Makes a <see cref="Read"/> in progress, or the next one, answer -1 without taking anything: the machine comes to rest. Any thread.
    /// </summary>
    void InterruptRead();

    /// <summary>Makes a <see cref="Read"/> in progress, and every later one, answer 0. Called when the VM stops; any thread.</summary>
    void StopReading();
}
