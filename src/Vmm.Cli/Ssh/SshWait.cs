using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using Vmm.Cli.Remote;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;

namespace Vmm.Cli.Ssh;

/// <summary>Waits for the ssh server of a guest that boots still.</summary>
/// <param name="session">The daemon, and who is told.</param>
/// <param name="name">The VM.</param>
/// <param name="patience">How long; zero does not wait, and does not look.</param>
internal sealed class SshWait(DaemonSession session, string name, TimeSpan patience)
{
    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(500), s_attempt = TimeSpan.FromSeconds(5);

    private readonly long _begin = Stopwatch.GetTimestamp();
    private bool _told;

    /// <summary>Where the guest is reached, once something speaks there.</summary>
    /// <exception cref="VmmApiException">It is not reached, nothing speaks there within the time, or the VM runs no more.</exception>
    internal async Task<SshTarget> TargetAsync(CancellationToken cancellation)
    {
        while (true)
        {
            VmInfo vm = await session.Client.ShowAsync(name, cancellation).ConfigureAwait(false);
            if (vm.State != VmState.Running)
            {
                throw NotRunning(vm);
            }

            string missing;
            try
            {
                SshTarget target = await SshTarget.FindAsync(session, vm, cancellation).ConfigureAwait(false);
                if (patience == TimeSpan.Zero || await SpeaksAsync(target, cancellation).ConfigureAwait(false))
                {
                    return target;
                }

                missing = string.Create(CultureInfo.InvariantCulture, $"{name} does not answer at {target.Host} port {target.Port}");
            }
            catch (VmmApiException cause) when (
                cause.Problem.Code is SshTarget.NoAddress && patience > TimeSpan.Zero)
            {
                missing = cause.Problem.Detail;
            }

            await PauseAsync(missing, cancellation).ConfigureAwait(false);
        }
    }

    private VmmApiException NotRunning(VmInfo vm) => new("wrong-state", vm.State switch
    {
        VmState.Paused => $"{name} is paused: 'vmmctl vm resume {name}' lets it go on",
        VmState.Saved => $"{name} is saved in {vm.SavedIn}: 'vmmctl vm restore {vm.SavedIn}' goes on with it",
        _ => $"{name} is {vm.State.Word()}: start it with 'vmmctl vm start {name}'",
    });

    private async Task PauseAsync(string missing, CancellationToken cancellation)
    {
        string limit = patience.TotalSeconds.ToString("0", CultureInfo.InvariantCulture);
        if (Stopwatch.GetElapsedTime(_begin) > patience)
        {
            throw new VmmApiException("not-reached", $"{missing}, also not within {limit} s (--wait): 'vmmctl vm console {name}' shows "
                + "what it does");
        }

        if (!_told)
        {
            _told = true;
            await session.Errors.WriteLineAsync($"vmmctl: {missing} yet: waiting for it up to {limit} s").ConfigureAwait(false);
        }

        await Task.Delay(s_pause, cancellation).ConfigureAwait(false);
    }

    // A port that user-mode networking publishes takes connections before the guest does: only a word of the server tells (RFC 4253
    // section 4.2).
    private static async Task<bool> SpeaksAsync(SshTarget target, CancellationToken cancellation)
    {
        using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(s_attempt);
        try
        {
            using TcpClient client = new();
            await client.ConnectAsync(target.Host, target.Port, limit.Token).ConfigureAwait(false);
            return await client.GetStream().ReadAsync(new byte[64], limit.Token).ConfigureAwait(false) > 0;
        }
        catch (Exception cause) when (cause is SocketException or IOException
            || (cause is OperationCanceledException && !cancellation.IsCancellationRequested))
        {
            return false;
        }
    }
}
