using Vmm.Contracts.Control;

namespace Vmm.Daemon.Workers;

/// <summary>
/// Asks a worker what it speaks, which VM it has and where that stands: at its start, on a new connection, and at an adoption.
/// </summary>
/// <param name="link">The connection.</param>
/// <param name="events">Takes its state.</param>
/// <param name="bounds">Takes its confinement.</param>
internal sealed class WorkerGreeting(WorkerLink link, WorkerEvents events, WorkerBounds bounds)
{
    private static readonly TimeSpan s_nextConnection = TimeSpan.FromMilliseconds(100);

    /// <summary>Says hello on the connection there is.</summary>
    /// <exception cref="WorkerException">It does not answer, or nonsense.</exception>
    internal async Task<HelloBody> HelloAsync(CancellationToken cancellation)
    {
        HelloRequest request = new(ControlVersion.Current, ControlVersion.Features);
        ControlClient client = link.Client;
        ControlClient.Answer answer = await client.CallAsync(
            ControlKinds.Hello, ControlCodec.Body(request, ControlJson.Default.HelloRequest), null, [], cancellation).ConfigureAwait(false);
        HelloBody hello = WorkerLink.Body(answer, ControlJson.Default.HelloBody);
        client.Peer = ControlPeer.Of(hello);
        events.SetState(hello.State);
        bounds.Confinement = hello.Confinement;
        if (hello.VmId is not null)
        {
            bounds.AddFileLimit(link.Process.FileSizeLimit is null ? "it has had none since its start" : null);
        }

        return hello;
    }

    /// <summary>Greets one that was found, not started.</summary>
    /// <param name="files">Where it was found.</param>
    /// <param name="kill">Ends one that does not answer, or not as it should; takes the reason.</param>
    /// <param name="cancellation">This daemon ends: the next one asks again.</param>
    /// <returns>True: it has the VM that it was found by, and says where that stands.</returns>
    internal async Task<bool> GreetAsync(WorkerFiles files, Action<string> kill, CancellationToken cancellation)
    {
        link.IsNeeded = true; // a connection that is lost before it said hello is made again, too
        try
        {
            if (await HelloOnAnyConnectionAsync(cancellation).ConfigureAwait(false) is not { } hello)
            {
                return false; // its process ended, or this daemon does
            }

            if (string.Equals(hello.VmId, files.VmId, StringComparison.Ordinal))
            {
                return true;
            }

            kill($"the worker at {files.Socket} said that it has another VM ({hello.VmId ?? "none"}), and was ended");
        }
        catch (WorkerException e)
        {
            // It does not speak any more: the VM cannot be managed, so it is ended and reported.
            kill($"its worker did not speak to the new vmmd and was ended: {e.Message}");
        }
        catch (OperationCanceledException)
        {
            // This daemon ends: the next one asks again.
        }

        return false;
    }

    /// <summary>Its hello, on this connection or on the next ones when this one is lost; null when the process ends first.</summary>
    private async Task<HelloBody?> HelloOnAnyConnectionAsync(CancellationToken cancellation)
    {
        while (!link.Ended.IsCompleted)
        {
            try
            {
                return await HelloAsync(cancellation).ConfigureAwait(false);
            }
            catch (WorkerException lost) when (lost.Code is ControlCodes.WorkerDied)
            {
                await Task.WhenAny(link.Ended, Task.Delay(s_nextConnection, cancellation)).ConfigureAwait(false);
                cancellation.ThrowIfCancellationRequested();
            }
        }

        return null;
    }
}
