namespace Vmm.Machine.Numa;

/// <summary>Lets a save of the machine halt a move of pages between two slices. Any thread.</summary>
internal sealed class MoveGate
{
    private readonly object _lock = new();
    private bool _held, _over, _inside;

    /// <summary>Begins a move; false while moves are halted.</summary>
    internal bool TryEnter()
    {
        lock (_lock)
        {
            _inside = !_held;
            return _inside;
        }
    }

    /// <summary>Between two slices: waits while moves are halted.</summary>
    internal void Pass()
    {
        lock (_lock)
        {
            if (!_held)
            {
                return;
            }

            _inside = false;
            Monitor.PulseAll(_lock);
            while (_held && !_over)
            {
                Monitor.Wait(_lock);
            }

            _inside = true;
        }
    }

    /// <summary>The move is over.</summary>
    internal void Leave()
    {
        lock (_lock)
        {
            _inside = false;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>From the return on no move changes anything, until <see cref="Resume"/>.</summary>
    /// <param name="cancel">Gives up waiting for the slice that is under way; the move goes on then.</param>
    /// <exception cref="OperationCanceledException">It gave up.</exception>
    internal void Hold(CancellationToken cancel)
    {
        using CancellationTokenRegistration wake = cancel.Register(Wake);
        lock (_lock)
        {
            _held = true;
            while (_inside && !cancel.IsCancellationRequested)
            {
                Monitor.Wait(_lock);
            }

            _held = !cancel.IsCancellationRequested;
            Monitor.PulseAll(_lock);
        }

        cancel.ThrowIfCancellationRequested();
    }

    /// <summary>Moves go on.</summary>
    internal void Resume()
    {
        lock (_lock)
        {
            _held = false;
            Monitor.PulseAll(_lock);
        }
    }

    /// <summary>The machine ends: a move that is halted goes on to its end.</summary>
    internal void End()
    {
        lock (_lock)
        {
            _over = true;
            Monitor.PulseAll(_lock);
        }
    }

    private void Wake()
    {
        lock (_lock)
        {
            Monitor.PulseAll(_lock);
        }
    }
}
