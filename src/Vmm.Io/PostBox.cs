using Vmm.Interop;

namespace Vmm.Io;

/// <summary>Work that other threads hand to a loop. Any thread posts; the loop's thread runs it in order.</summary>
internal sealed class PostBox : IDisposable
{
    private readonly Lock _gate = new();
    private List<Action> _waiting = [], _running = [];
    private volatile bool _any;
    private bool _closed;

    /// <summary>Rings when something was posted.</summary>
    internal EventFd Bell { get; } = new();

    /// <summary>True when something waits.</summary>
    internal bool Any => _any;

    /// <summary>Adds work; false when the loop is gone.</summary>
    internal bool Post(Action action)
    {
        lock (_gate)
        {
            if (_closed)
            {
                return false;
            }

            _waiting.Add(action);
            _any = true;
            Bell.Signal();
            return true;
        }
    }

    /// <summary>Runs what waits.</summary>
    internal void Run()
    {
        lock (_gate)
        {
            (_waiting, _running) = (_running, _waiting);
            _any = false;
        }

        foreach (Action action in _running)
        {
            action();
        }

        _running.Clear();
    }

    public void Dispose()
    {
        lock (_gate)
        {
            _closed = true;
            Bell.Dispose();
        }
    }
}
