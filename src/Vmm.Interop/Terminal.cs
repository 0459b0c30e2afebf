using System.Runtime.InteropServices;
using Tmds.Linux;
using Vmm.Interop.Libc;

namespace Vmm.Interop;

/// <summary>Standard input and output as bytes: raw mode, reads that can be called off, unbuffered writes.</summary>
public sealed class Terminal : IDisposable
{
    private readonly Lock _gate = new();
    private readonly EventFd _stop = new();
    private readonly int _inputFd;
    private readonly int _outputFd;
    private termios? _saved;
    private PosixSignalRegistration? _quit;
    private volatile bool _stopped;
    private int _interrupted;

    /// <summary>Uses descriptors 0 and 1 unless told otherwise; they stay the caller's.</summary>
    public Terminal(int inputFd = 0, int outputFd = 1)
    {
        _inputFd = inputFd;
        _outputFd = outputFd;
        IsInteractive = TerminalCalls.IsTerminal(inputFd);
    }

    /// <summary>Input comes from a terminal, not from a file or pipe.</summary>
    public bool IsInteractive { get; }

    /// <summary>How big the terminal of the output is, in characters; null when it is none, or does not know.</summary>
    public (ushort Columns, ushort Rows)? Size => TerminalCalls.Size(_outputFd);

    /// <summary>
    /// Switches a terminal to raw mode; nothing on a pipe. <see cref="Restore"/> undoes it, and so does every signal that would end or stop
    /// the process.
    /// </summary>
    /// <exception cref="KernelException">tcsetattr refused.</exception>
    public void EnterRawMode()
    {
        lock (_gate)
        {
            if (!IsInteractive || _saved is not null)
            {
                return;
            }

            // The runtime has this signal for itself; when this has restored, it goes on to end the process.
            _quit ??= PosixSignalRegistration.Create(PosixSignal.SIGQUIT, _ => Restore());
            _ = Native.TerminalGuard(_inputFd);
            int answer = TerminalCalls.EnterRaw(_inputFd, out termios saved);
            if (answer < 0)
            {
                Native.TerminalUnguard();
            }

            KernelException.ThrowIfError(answer, "tcsetattr on the terminal");
            _saved = saved;
        }
    }

    /// <summary>Puts the settings back as they were; safe to call twice and from any thread.</summary>
    public void Restore()
    {
        lock (_gate)
        {
            if (_saved is { } saved)
            {
                _ = TerminalCalls.Restore(_inputFd, saved);
                Native.TerminalUnguard();
                _saved = null;
            }
        }
    }

    /// <summary>
    /// Waits for input. 0 at the end of input, after <see cref="StopReading"/>, and when input is broken; -1 after
    /// <see cref="InterruptRead"/>.
    /// </summary>
    public int Read(Span<byte> buffer)
    {
        if (_stopped)
        {
            return 0;
        }

        int count = TerminalCalls.Read(_inputFd, _stop.Handle, buffer);
        if (count == 0 && !_stopped && Interlocked.Exchange(ref _interrupted, 0) != 0)
        {
            _stop.TryTake(out _);
            return -1;
        }

        return Math.Max(0, count);
    }

    /// <summary>Ends a read in progress and every later one.</summary>
    public void StopReading()
    {
        _stopped = true;
        _stop.Signal();
    }

    /// <summary>Makes a read in progress, or the next one, answer -1 without taking anything. Any thread.</summary>
    public void InterruptRead()
    {
        Volatile.Write(ref _interrupted, 1);
        _stop.Signal();
    }

    /// <summary>Writes everything; false when nobody can take it (a closed pipe).</summary>
    public bool Write(ReadOnlySpan<byte> bytes) => TerminalCalls.Write(_outputFd, bytes) == 0;

    /// <summary>Restores the terminal.</summary>
    public void Dispose()
    {
        Restore();
        _quit?.Dispose();
        _stop.Dispose();
    }
}
