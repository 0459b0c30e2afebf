using System.Runtime.InteropServices;

namespace Vmm.CommandLine;

/// <summary>While it exists, Ctrl-C, a termination request and a hang-up cancel a token instead of ending the process.</summary>
internal sealed class StopSignals : IDisposable
{
    private readonly CancellationTokenSource _stop;
    private readonly PosixSignalRegistration[] _registrations;

    /// <summary>Takes the signals over; they cancel <paramref name="stop"/>.</summary>
    internal StopSignals(CancellationTokenSource stop)
    {
        _stop = stop;
        _registrations =
        [
            PosixSignalRegistration.Create(PosixSignal.SIGINT, Signalled),
            PosixSignalRegistration.Create(PosixSignal.SIGTERM, Signalled),
            PosixSignalRegistration.Create(PosixSignal.SIGHUP, Signalled),
        ];
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations)
        {
            registration.Dispose();
        }
    }

    private void Signalled(PosixSignalContext context)
    {
        context.Cancel = true;
        _stop.Cancel();
    }
}
