using System.Collections.Concurrent;

namespace Vmm.Worker;

/// <summary>
/// Carries out what changes the machine, one thing after the other and in the order it was asked for, so that the thread that receives goes
/// on answering: a pause may wait for storage, and somebody wants to know why, or to stop the VM.
/// </summary>
internal sealed class TurnThread : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(5);

    private readonly BlockingCollection<Action> _asked = [];
    private readonly Thread _thread;

    /// <summary>Starts the thread, which inherits the system call filter of the one that calls.</summary>
    internal TurnThread()
    {
        _thread = new Thread(Run, maxStackSize: 512 * 1024) { Name = "turns", IsBackground = true };
        _thread.Start();
    }

    /// <summary>Adds something to do. Any thread. It must not throw.</summary>
    internal void Add(Action action) => _asked.Add(action);

    /// <summary>What was asked for and has not begun is not done. Waits a little for what is under way.</summary>
    public void Dispose()
    {
        while (_asked.TryTake(out _))
        {
        }

        _asked.CompleteAdding();
        if (_thread.Join(s_patience))
        {
            _asked.Dispose();
        }
    }

    private void Run()
    {
        foreach (Action action in _asked.GetConsumingEnumerable())
        {
            action();
        }
    }
}
