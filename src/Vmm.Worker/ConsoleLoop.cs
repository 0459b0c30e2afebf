using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Worker;

/// <summary>
/// The console thread: moves bytes between the sockets of a <see cref="ConsoleHub"/> and its buffers. Its loop has no ring: a console
/// answers also where io_uring is switched off.
/// </summary>
internal sealed class ConsoleLoop : IIoService, IDisposable
{
    private const int Patience = 1000; // milliseconds that slow readers get when the hub is closed

    private readonly ConsoleHub _hub;
    private readonly IoLoop _loop = IoLoop.WithoutRing();
    private readonly IoTimer _giveUp;
    private readonly Doorbell _wake;
    private readonly List<ConsoleSocket> _consoles = [];
    private readonly byte[] _buffer = new byte[4096];
    private bool _closing;

    /// <summary>Makes the loop. <paramref name="wake"/> rings when there is output, room for input, a new console, or the end.</summary>
    internal ConsoleLoop(ConsoleHub hub, EventFd wake)
    {
        _hub = hub;
        _giveUp = _loop.AddTimer(_loop.Stop);
        _wake = _loop.Watch(wake, rung: null);
    }

    /// <inheritdoc/>
    public bool IsDrained => true;

    /// <summary>Serves until the hub is closed and its readers have the output, or had their time.</summary>
    internal void Run() => _loop.Run(this);

    /// <inheritdoc/>
    public void Dispose()
    {
        _loop.Unwatch(_wake);
        _loop.Dispose();
    }

    /// <inheritdoc/>
    public void BeginRound()
    {
    }

    /// <inheritdoc/>
    public bool Serve()
    {
        _hub.CopyConsoles(_consoles);
        if (!_closing && _hub.IsClosing)
        {
            _closing = true;
            _giveUp.Set(Patience);
        }

        bool wantsInput = _hub.WantsInput, owes = false;
        foreach (ConsoleSocket console in _consoles)
        {
            Know(console);
            if (console.IsGone || (!console.IsWriting && !Send(console)))
            {
                Drop(console);
                continue;
            }

            owes |= console.IsWriting;
            Listen(console, wantsInput);
        }

        if (_closing && !owes)
        {
            _loop.Stop();
        }

        return false;
    }

    /// <inheritdoc/>
    public bool PrepareSleep() => false;

    /// <inheritdoc/>
    public void Stopping()
    {
    }

    private void Know(ConsoleSocket console)
    {
        if (console.Reading is null)
        {
            console.Reading = new IoPoll((_, _) => Receive(console));
            console.Writing = new IoPoll((_, _) => console.IsWriting = false);
            _loop.Add(console.Reading);
            _loop.Add(console.Writing);
        }
    }

    private void Listen(ConsoleSocket console, bool wanted)
    {
        if (wanted && !console.IsReading)
        {
            console.IsReading = true;
            _loop.WatchOnce(console.Reading!, console.Socket, PollEvents.Readable);
        }
        else if (!wanted && console.IsReading)
        {
            console.IsReading = false;
            _loop.CallOff(console.Reading!);
        }
    }

    // False when it is to be dropped.
    private bool Send(ConsoleSocket console)
    {
        while (true)
        {
            int length = _hub.CopyOutput(console.Position, _buffer);
            if (length <= 0)
            {
                return length == 0;
            }

            int sent = console.Socket.Send(_buffer.AsSpan(0, length));
            if (sent < 0)
            {
                return false;
            }

            if (sent == 0)
            {
                console.IsWriting = true;
                _loop.WatchOnce(console.Writing!, console.Socket, PollEvents.Writable);
                return true;
            }

            console.Position += sent;
        }
    }

    private void Receive(ConsoleSocket console)
    {
        console.IsReading = false;
        int got = console.Socket.Receive(_buffer.AsSpan(0, 256));
        if (got > 0)
        {
            _hub.AddInput(_buffer.AsSpan(0, got));
        }

        console.IsGone |= got == 0;
    }

    // Only between two rounds: a completion of this one may wait to be delivered.
    private void Drop(ConsoleSocket console)
    {
        _hub.Remove(console);
        _loop.CallOff(console.Reading!);
        _loop.CallOff(console.Writing!);
        _loop.Remove(console.Reading!);
        _loop.Remove(console.Writing!);
        console.Socket.Dispose();
    }
}
