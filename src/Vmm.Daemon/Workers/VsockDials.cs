using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>What a guest dials on the host: a few at a time, each answered over the control channel.</summary>
/// <param name="call">Sends the answer.</param>
internal sealed class VsockDials(Func<VsockDialed, UnixStream?, Task> call)
{
    private const int Most = 8;

    private VsockBroker? _broker;
    private string? _path;
    private int _dials;

    /// <summary>From now on the guest reaches sockets at this path.</summary>
    internal void Serve(string path)
    {
        _path = path;
        Volatile.Write(ref _broker, new VsockBroker(path));
    }

    /// <summary>The guest's own socket gets its name, which another worker had.</summary>
    /// <exception cref="IOException">It cannot.</exception>
    internal void TakeName()
    {
        if (_path is { } path)
        {
            VsockNames.TakeName(path);
        }
    }

    /// <summary>
    /// Begins to dial. A worker that was taken over may ask without end: what is beyond the limit is dropped, and the guest refused by its
    /// own deadline.
    /// </summary>
    internal void Begin(VsockDial wish)
    {
        if (Interlocked.Increment(ref _dials) <= Most)
        {
            _ = Task.Run(() => DialAsync(wish));
        }
        else
        {
            Interlocked.Decrement(ref _dials);
        }
    }

    private async Task DialAsync(VsockDial wish)
    {
        try
        {
            using UnixStream? stream = Volatile.Read(ref _broker) is { } broker
                ? await broker.ConnectAsync(wish).ConfigureAwait(false)
                : null;
            await call(new VsockDialed(wish.Dial, stream is not null), stream).ConfigureAwait(false);
        }
        catch (WorkerException)
        {
            // The worker is gone, or does not speak: the guest is refused by its own deadline.
        }
        finally
        {
            Interlocked.Decrement(ref _dials);
        }
    }
}
