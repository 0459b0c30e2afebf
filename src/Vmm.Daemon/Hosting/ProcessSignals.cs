using System.Runtime.InteropServices;

namespace Vmm.Daemon.Hosting;

/// <summary>
/// SIGINT and SIGTERM end the daemon, SIGHUP rereads its settings. They are taken before anything starts, so that one that comes meanwhile
/// is not lost.
/// </summary>
internal sealed class ProcessSignals : IDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private readonly PosixSignalRegistration[] _registrations;
    private Action? _hangup;

    internal ProcessSignals() => _registrations =
    [
        PosixSignalRegistration.Create(PosixSignal.SIGINT, End),
        PosixSignalRegistration.Create(PosixSignal.SIGTERM, End),
        PosixSignalRegistration.Create(PosixSignal.SIGHUP, HangUp),
    ];

    /// <summary>Cancelled once the process was asked to end.</summary>
    internal CancellationToken Stop => _stop.Token;

    /// <summary>What SIGHUP does from now on; before, it does nothing: a terminal that closes is no reason to end.</summary>
    internal void OnHangUp(Action action) => Volatile.Write(ref _hangup, action);

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations)
        {
            registration.Dispose();
        }

        _stop.Dispose();
    }

    private void End(PosixSignalContext context)
    {
        context.Cancel = true;
        _stop.Cancel();
    }

    private void HangUp(PosixSignalContext context)
    {
        context.Cancel = true;
        Volatile.Read(ref _hangup)?.Invoke();
    }
}
