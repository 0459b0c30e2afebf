using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Workers that wait for a VM, so that its start does not wait for theirs. Disposing ends them. Any thread.
/// </summary>
/// <param name="processes">Starts them.</param>
/// <param name="options">How many.</param>
internal sealed class WorkerPool(WorkerProcesses processes, WorkerLauncherOptions options) : IAsyncDisposable
{
    // The VM that took a worker from the pool starts first; the next worker's start would take its CPU.
    private static readonly TimeSpan s_afterLaunch = TimeSpan.FromMilliseconds(250);

    private readonly CancellationTokenSource _stopping = new();
    private readonly Lock _lock = new();
    private readonly Queue<RemoteWorker> _ready = new();
    private Task _refill = Task.CompletedTask;
    private bool _disposed;

    /// <summary>Ready workers now.</summary>
    internal int Ready
    {
        get
        {
            lock (_lock)
            {
                return _ready.Count;
            }
        }
    }

    /// <summary>Processes of the ready workers now.</summary>
    internal IReadOnlyList<int> ProcessIds
    {
        get
        {
            lock (_lock)
            {
                return [.. _ready.Select(worker => worker.ProcessId)];
            }
        }
    }

    /// <summary>Cancelled when the pool is disposed.</summary>
    internal CancellationToken Stopping => _stopping.Token;

    /// <summary>Starts to fill it.</summary>
    internal void Fill() => Refill(TimeSpan.Zero);

    /// <summary>A worker that owns the user: of the pool, else a new one. Those of the pool that died meanwhile are let go.</summary>
    /// <exception cref="WorkerException">A new one ended at once.</exception>
    /// <exception cref="KernelException">A new one cannot be started.</exception>
    internal async Task<RemoteWorker> TakeAsync(uint? user, CancellationToken cancellation)
    {
        while (true)
        {
            RemoteWorker? worker;
            lock (_lock)
            {
                ObjectDisposedException.ThrowIf(_disposed, this);
                _ready.TryDequeue(out worker);
            }

            bool pooled = worker is not null;
            worker ??= await Task.Run(processes.Spawn, cancellation).ConfigureAwait(false);
            if (!worker.Closed.IsCompleted && worker.TryOwn(user))
            {
                Refill(s_afterLaunch);
                return worker;
            }

            _ = worker.RetireAsync();
            if (!pooled)
            {
                throw new WorkerException(ControlCodes.WorkerStartFailed,
                    $"a new worker process ({options.Program}) ended at once: its reason is in the daemon's log");
            }
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            if (_disposed)
            {
                return;
            }

            _disposed = true;
        }

        await _stopping.CancelAsync().ConfigureAwait(false);
        await _refill.ConfigureAwait(false);
        while (_ready.TryDequeue(out RemoteWorker? worker))
        {
            await worker.RetireAsync().ConfigureAwait(false);
        }

        _stopping.Dispose();
    }

    // One at a time, in the background: a launch is not to wait for the pool.
    private void Refill(TimeSpan delay)
    {
        lock (_lock)
        {
            if (!_disposed && options.PoolSize > 0)
            {
                _refill = _refill.ContinueWith(_ => FillAsync(delay), TaskScheduler.Default).Unwrap();
            }
        }
    }

    private async Task FillAsync(TimeSpan delay)
    {
        try
        {
            await Task.Delay(delay, _stopping.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            return;
        }

        while (true)
        {
            lock (_lock)
            {
                if (_disposed || _ready.Count >= options.PoolSize)
                {
                    return;
                }
            }

            RemoteWorker? worker = null;
            try
            {
                worker = processes.Spawn();
                await worker.HelloAsync(_stopping.Token).ConfigureAwait(false);
                await worker.PrepareAsync(_stopping.Token).ConfigureAwait(false);
                lock (_lock)
                {
                    _ready.Enqueue(worker);
                }
            }
            catch (Exception cause) when (cause is KernelException or WorkerException or OperationCanceledException)
            {
                if (worker is not null)
                {
                    await worker.RetireAsync().ConfigureAwait(false);
                }

                return; // the next launch meets the same trouble and reports it
            }
        }
    }
}
