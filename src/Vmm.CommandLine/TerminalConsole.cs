using Vmm.Interop;

namespace Vmm.CommandLine;

/// <summary>The guest's console on our own stdin and stdout. Bytes go to fd 1 as they are, through a bounded buffer.</summary>
public sealed class TerminalConsole : IDisposable
{
    private static readonly byte[] HelpText =
        "\r\nCtrl-A x  stop the VM and leave\r\nCtrl-A h  this help\r\nCtrl-A Ctrl-A  send Ctrl-A\r\n"u8.ToArray();

    private readonly Terminal _terminal;
    private readonly Action _leave;
    private readonly bool _readInput;
    private readonly EscapeFilter? _escape;
    private readonly ConsoleBuffer _output;
    private byte[] _pending = [];
    private TerminalSizeWatch? _size;

    /// <summary>Binds a terminal. <paramref name="leave"/> is called on Ctrl-A x, from the reading thread.</summary>
    public TerminalConsole(Terminal terminal, bool readInput, Action leave)
    {
        _terminal = terminal;
        _readInput = readInput;
        _leave = leave;
        _output = new ConsoleBuffer(bytes => terminal.Write(bytes));
        _escape = terminal.IsInteractive ? new EscapeFilter() : null;
    }

    /// <summary>Takes the guest's output; what nobody can take is dropped.</summary>
    public void Write(ReadOnlySpan<byte> output) => _output.Write(output);

    /// <summary>The run is to end: nobody waits for a reader of the output any more. Any thread.</summary>
    public void Hurry() => _output.Hurry();

    /// <summary>Tells the size of the terminal, in columns and rows: now, when it is known, and after each change. Any thread.</summary>
    public void OnResize(Action<ushort, ushort> resized)
    {
        _size?.Dispose();
        _size = new TerminalSizeWatch(_terminal, resized);
    }

    /// <summary>Lets whoever reads have what is left of the output.</summary>
    public void Dispose()
    {
        _size?.Dispose();
        _output.Dispose();
    }

    /// <summary>Makes a <see cref="Read"/> in progress, and every later one, answer 0. Any thread.</summary>
    public void StopReading() => _terminal.StopReading();

    /// <summary>Makes a <see cref="Read"/> in progress, or the next one, answer -1 without taking anything. Any thread.</summary>
    public void InterruptRead() => _terminal.InterruptRead();

    /// <summary>Waits for input to the guest; 0 means there will be no more, -1 that it was interrupted.</summary>
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

            if (length <= 0 || _escape is null)
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
                _output.Write(HelpText);
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
