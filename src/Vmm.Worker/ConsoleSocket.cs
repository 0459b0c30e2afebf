using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Worker;

/// <summary>One attached console: its socket, and how far it has the output. Belongs to the console thread once that has seen it.</summary>
internal sealed class ConsoleSocket(UnixStream socket, long position)
{
    /// <summary>Our end.</summary>
    internal UnixStream Socket { get; } = socket;

    /// <summary>Where it goes on in the output.</summary>
    internal long Position { get; set; } = position;

    /// <summary>Waits for input; null until the console thread has seen it.</summary>
    internal IoPoll? Reading { get; set; }

    /// <summary>Waits for room.</summary>
    internal IoPoll? Writing { get; set; }

    /// <summary>True when the far side has closed.</summary>
    internal bool IsGone { get; set; }

    /// <summary>True while <see cref="Reading"/> waits.</summary>
    internal bool IsReading { get; set; }

    /// <summary>True while <see cref="Writing"/> waits.</summary>
    internal bool IsWriting { get; set; }
}
