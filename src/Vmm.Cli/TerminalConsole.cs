using Vmm.Interop;
using Vmm.Machine.Run;

namespace Vmm.Cli;

/// <summary>The guest's console on our own stdin and stdout. Bytes go to fd 1 as they come: no encoding, no buffer.</summary>
public sealed class TerminalConsole : IConsoleEndpoint
{
    private static readonly byte[] HelpText = "\r\nCtrl-A x  stop the VM and leave\r\nCtrl-A h  this help\r\nCtrl-A Ctrl-A  send Ctrl-A\r\n"u8.ToArray();

    private readonly Terminal _terminal;
    private readonly Action _leave;
    private readonly bool _readInput;
    private readonly EscapeFilter? _escape;
    private byte[] _pending = [];

    /// <summary>Binds a terminal. <paramref name="leave"/> is called on Ctrl-A x, from the reading thread.</summary>
    public TerminalConsole(Terminal terminal, bool readInput, Action leave)
    {
        _terminal = terminal;
        _readInput = readInput;
        _leave = leave;
        _escape = terminal.IsInteractive ? new EscapeFilter() : null;
    }

    /// <inheritdoc/>
    public void Write(ReadOnlySpan<byte> output) => _terminal.Write(output);

    /// <inheritdoc/>
    public void StopReading() => _terminal.StopReading();

    /// <inheritdoc/>
    public int Read(Span<byte> input)
    {
        while (_readInput && input.Length > 0)
        {
            int length;
            if (_pending.Length > 0)
            {
                length = Math.Min(_pending.Length, input.Length);
                _pending.AsSpan(0, length).CopyTo(input);
                _pending = _pending[length..];
            }
            else
            {
                length = _terminal.Read(input);
            }

            if (length == 0 || _escape is null)
            {
                return length;
            }

            int kept = _escape.Filter(input[..length], out int consumed, out EscapeAction action);
            if (action == EscapeAction.Leave)
            {
                _leave();
                return 0;
            }

            if (action == EscapeAction.Help)
            {
                _terminal.Write(HelpText);
            }

            _pending = [.. input[consumed..length], .. _pending];
            if (kept > 0)
            {
                return kept;
            }
        }

        return 0;
    }
}
