using System.Runtime.InteropServices;

namespace Vmm.Cli;

/// <summary>
/// What <c>vmmctl run</c> can do before it knows the spec, on a second thread: take over the signals that end the VM, and the machine's share of the start.
/// Together they are a third of the time to the first guest instruction.
/// </summary>
internal sealed class RunPreparation : IDisposable
{
    private readonly object _gate = new(); // a Monitor: the lightest that can be waited for
    private readonly CancellationTokenSource _stop;
    private readonly Action? _work;
    private readonly Thread _thread;
    private PosixSignalRegistration? _interrupt, _terminate, _hangUp;
    private bool _signals;

    private RunPreparation(Action? work, CancellationTokenSource stop)
    {
        _work = work;
        _stop = stop;
        _thread = new Thread(Work, maxStackSize: 256 * 1024) { Name = "prepare", IsBackground = true };
    }

    /// <summary>Starts the thread. Ctrl-C, a termination request and a hang-up cancel <paramref name="stop"/> from <see cref="WaitForSignals"/> on.</summary>
    internal static RunPreparation Begin(Action? work, CancellationTokenSource stop)
    {
        RunPreparation preparation = new(work, stop);
        preparation._thread.Start();
        return preparation;
    }

    /// <summary>Returns when the signals are taken over; the work goes on.</summary>
    internal void WaitForSignals()
    {
        lock (_gate)
        {
            while (!_signals)
            {
                Monitor.Wait(_gate);
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _thread.Join();
        _interrupt?.Dispose();
        _terminate?.Dispose();
        _hangUp?.Dispose();
    }

    private void Work()
    {
        _interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Signalled);
        _terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Signalled);
        _hangUp = PosixSignalRegistration.Create(PosixSignal.SIGHUP, Signalled);
        lock (_gate)
        {
            _signals = true;
            Monitor.PulseAll(_gate);
        }

        _work?.Invoke();
    }

    private void Signalled(PosixSignalContext context)
    {
        context.Cancel = true;
        _stop.Cancel();
    }
}
