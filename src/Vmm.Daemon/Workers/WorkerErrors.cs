using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>
/// What a worker writes to its standard error, as lines for the daemon's log. A worker is not trusted: lines are bounded in length and
/// number, control characters go, and one that writes without end is read slowly, so that it waits and the daemon does not work for it.
/// </summary>
internal sealed class WorkerErrors : IDisposable
{
    /// <summary>Longest line, characters; lines at once; milliseconds until there is room for one more.</summary>
    internal const int LongestLine = 1024, Burst = 64, MillisecondsPerLine = 2000;

    private const int PauseMilliseconds = 250; // between reads of one that wrote too much: 16 KiB a second

    private readonly Socket _socket;
    private readonly Action<string> _write;
    private readonly StringBuilder _line = new();
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private double _room = Burst;
    private long _filledAt;
    private long _leftOut;
    private bool _cut;

    /// <param name="end">The daemon's end of the stream; owned from here on.</param>
    /// <param name="write">Takes a line.</param>
    internal WorkerErrors(FileDescriptorHandle end, Action<string> write)
    {
        _socket = new Socket(new SafeSocketHandle(end.Detach(), ownsHandle: true));
        _write = write;
        Finished = Task.Run(ReadAsync);
    }

    /// <summary>Completes when the worker is gone, or this is disposed, and everything was told.</summary>
    internal Task Finished { get; }

    public void Dispose() => _socket.Dispose();

    private async Task ReadAsync()
    {
        byte[] buffer = new byte[4096];
        try
        {
            while (true)
            {
                int length = await _socket.ReceiveAsync(buffer).ConfigureAwait(false);
                if (length == 0)
                {
                    break;
                }

                foreach (byte one in buffer.AsSpan(0, length))
                {
                    Take((char)one);
                }

                if (_room < 1)
                {
                    await Task.Delay(PauseMilliseconds).ConfigureAwait(false);
                }
            }
        }
        catch (Exception cause) when (cause is SocketException or ObjectDisposedException)
        {
            // Closed here, or broken: it has nothing more to say.
        }

        if (_line.Length > 0)
        {
            EndLine();
        }

        TellLeftOut();
    }

    // Bytes above ASCII are no line of ours: they become question marks.
    private void Take(char c)
    {
        if (c == '\n')
        {
            EndLine();
        }
        else if (_line.Length < LongestLine)
        {
            _line.Append(char.IsControl(c) ? ' ' : c > '\x7e' ? '?' : c);
        }
        else
        {
            _cut = true;
        }
    }

    private void EndLine()
    {
        long now = _clock.ElapsedMilliseconds;
        _room = Math.Min(Burst, _room + ((now - _filledAt) / (double)MillisecondsPerLine));
        _filledAt = now;
        if (_room >= 1)
        {
            _room--;
            TellLeftOut();
            _write(_cut ? _line.Append("...").ToString() : _line.ToString());
        }
        else
        {
            _leftOut++;
        }

        _line.Clear();
        _cut = false;
    }

    private void TellLeftOut()
    {
        if (_leftOut > 0)
        {
            _write($"({_leftOut} lines left out)");
            _leftOut = 0;
        }
    }
}
