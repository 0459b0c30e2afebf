using System.Runtime.InteropServices;

namespace Vmm.Interop;

/// <summary>
/// Tells the size of a terminal now and after each change (SIGWINCH), until it is disposed. A pipe or a file has none, and tells nothing.
/// </summary>
public sealed class TerminalSizeWatch : IDisposable
{
    private readonly PosixSignalRegistration? _changed;

    /// <param name="terminal">Whose size.</param>
    /// <param name="tell">Takes columns and rows: here and now, later from a thread of the runtime.</param>
    public TerminalSizeWatch(Terminal terminal, Action<ushort, ushort> tell)
    {
        if (terminal.Size is null)
        {
            return;
        }

        _changed = PosixSignalRegistration.Create(PosixSignal.SIGWINCH, _ => Tell());
        Tell();

        void Tell()
        {
            if (terminal.Size is { } size)
            {
                tell(size.Columns, size.Rows);
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _changed?.Dispose();
}
