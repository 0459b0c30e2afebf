using System.Runtime.InteropServices;

namespace Vmm.Cli;

/// <summary>
/// What <c>vmmctl run</c> can do before it knows the spec, on a second thread: start the machine's share of it, and take over the signals
/// that end the VM. Together they are a third of the time to the first guest instruction.
/// </summary>
internal sealed class RunPreparation : IDisposable
{
    private readonly CancellationTokenSource _stop;
    private readonly Action? _prepare;
    private readonly Thread _thread;
    private PosixSignalRegistration? _interrupt, _terminate, _hangUp;

    private RunPreparation(Action? prepare, CancellationTokenSource stop)
    {
        _prepare = prepare;
        _stop = stop;
        _thread = new Thread(Work, maxStackSize: 256 * 1024) { Name = "prepare", IsBackground = true };
    }

    /// <summary>Starts the thread. Ctrl-C, a termination request and a hang-up cancel <paramref name="stop"/> from <see cref="Wait"/> on.</summary>
    internal static RunPreparation Begin(Action? prepare, CancellationTokenSource stop)
    {
        RunPreparation preparation = new(prepare, stop);
        preparation._thread.Start();
        return preparation;
    }

    /// <summary>Returns when everything is done.</summary>
    internal void Wait() => _thread.Join();

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
        _prepare?.Invoke();
        _interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Signalled);
        _terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Signalled);
        _hangUp = PosixSignalRegistration.Create(PosixSignal.SIGHUP, Signalled);
    }

    private void Signalled(PosixSignalContext context)
    {
        context.Cancel = true;
        _stop.Cancel();
    }
}
