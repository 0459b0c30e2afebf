using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts;
using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>
/// The process of a worker and the connection to it, which is made again when it is lost. A lost connection is no reason to end a VM: only
/// a process that has no VM, or whose VM is over or told to stop, is killed when it does not end in time.
/// </summary>
#pragma warning disable CA1001 // CloseAsync disposes the connection.
internal sealed class WorkerLink
#pragma warning restore CA1001
{
    private readonly WorkerLauncherOptions _options;
    private readonly Action<ControlFrame> _onEvent;
    private readonly Func<Task> _greet;
    private readonly Action _kill;
    private readonly Reconnects _reconnects = new();
    private readonly Lock _lock = new();
    private readonly List<Action<bool>> _handlers = [];
    private volatile ControlClient _client;
    private volatile bool _disposed, _needed;

    /// <summary>Takes over a connection and a process.</summary>
    /// <param name="socket">The connection; owned from here on.</param>
    /// <param name="process">The process; owned from here on.</param>
    /// <param name="options">Time limits.</param>
    /// <param name="onEvent">Called with each event.</param>
    /// <param name="greet">Learns anew where the worker stands, on a new connection.</param>
    /// <param name="kill">Ends the process.</param>
    internal WorkerLink(
        PacketSocket socket,
        ProcessHandle process,
        WorkerLauncherOptions options,
        Action<ControlFrame> onEvent,
        Func<Task> greet,
        Action kill)
    {
        Process = process;
        _options = options;
        _onEvent = frame =>
        {
            _needed &= frame.Kind is not ControlKinds.Ended;
            onEvent(frame);
        };
        _greet = greet;
        _kill = kill;
        _client = new ControlClient(socket, options.AnswerTimeout, _onEvent);
        Ended = Task.Run(WatchAsync);
    }

    /// <summary>The process.</summary>
    internal ProcessHandle Process { get; }

    /// <summary>The connection as it is now.</summary>
    internal ControlClient Client => _client;

    /// <summary>How the process ended; null: this object was disposed before. Never faults.</summary>
    internal Task<ProcessEnd?> Ended { get; }

    /// <summary>Where the worker listens; null as long as it has no VM.</summary>
    internal string? Address { get; set; }

    /// <summary>It has a VM that is to go on: it is not killed for a lost connection.</summary>
    internal bool IsNeeded { get => _needed; set => _needed = value; }

    /// <summary>Answers a wish of the worker to be connected.</summary>
    /// <param name="kind">Kind of the answer, which is a request.</param>
    /// <param name="body">Its body.</param>
    /// <param name="name">Name of the descriptor.</param>
    /// <param name="connected">The connection; not owned. Null: there is none.</param>
    /// <exception cref="WorkerException">The worker is gone, or does not speak.</exception>
    internal async Task AnswerDialAsync(string kind, JsonElement body, string name, FileDescriptorHandle? connected)
    {
        ControlClient.Answer answer = await Client.CallAsync(
            kind, body, connected is null ? null : [name], connected is null ? [] : [connected], CancellationToken.None)
            .ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    /// <summary>Asks for something that is answered with nothing but that it is done.</summary>
    /// <exception cref="WorkerException">It is not done.</exception>
    internal async Task CallAsync(string kind, JsonElement? body, CancellationToken cancellation)
    {
        ControlClient.Answer answer = await Client.CallAsync(kind, body, null, [], cancellation).ConfigureAwait(false);
        answer.Descriptor?.Dispose();
    }

    /// <summary>Asks for something; the answer is checked.</summary>
    /// <exception cref="WorkerException">It refuses, or answers nonsense.</exception>
    internal async Task<T> AskAsync<T>(string kind, JsonTypeInfo<T> type, JsonElement? question, CancellationToken cancellation)
        where T : class
    {
        ControlClient.Answer answer = await Client.CallAsync(kind, question, null, [], cancellation).ConfigureAwait(false);
        return Body(answer, type);
    }

    /// <summary>Asks for a byte stream, whose descriptor comes with the answer.</summary>
    /// <exception cref="WorkerException">It has none, or sent something else.</exception>
    internal async Task<Stream> OpenStreamAsync(string kind, JsonElement? body, CancellationToken cancellation)
    {
        ControlClient.Answer answer = await Client.CallAsync(kind, body, null, [], cancellation).ConfigureAwait(false);
        if (answer.Descriptor is not { } descriptor)
        {
            throw new WorkerException(ControlCodes.BadAnswer, $"the worker sent no stream for \"{kind}\"");
        }

        try
        {
            return new NetworkStream(new Socket(new SafeSocketHandle(descriptor.Detach(), ownsHandle: true)), ownsSocket: true);
        }
        catch (Exception cause) when (cause is SocketException or IOException or ArgumentException)
        {
            throw new WorkerException(ControlCodes.BadAnswer, $"the worker sent something that is no stream for \"{kind}\"", cause);
        }
    }

    /// <summary>What an answer says, checked; a descriptor that came with it is closed.</summary>
    /// <exception cref="WorkerException">It is nonsense.</exception>
    internal static T Body<T>(ControlClient.Answer answer, JsonTypeInfo<T> type) where T : class
    {
        answer.Descriptor?.Dispose();
        return ControlCodec.TryBody(answer.Frame, type, out T? body, out string problem)
            ? WorkerCheck.Checked(body)
            : throw new WorkerException(ControlCodes.BadAnswer, $"the worker answered nonsense: {SafeText.Line(problem, 1024)}");
    }

    /// <summary>Calls <paramref name="handler"/> with false when the connection is lost, and with true when it is there again.</summary>
    internal void OnChanged(Action<bool> handler)
    {
        lock (_lock)
        {
            _handlers.Add(handler);
        }
    }

    /// <summary>Closes the connection; the process goes on. False when that was done before.</summary>
    internal async Task<bool> CloseAsync()
    {
        lock (_lock)
        {
            if (_disposed)
            {
                return false;
            }

            _disposed = true;
        }

        await Task.Run(_client.Dispose).ConfigureAwait(false);
        await Ended.ConfigureAwait(false);
        Process.Dispose();
        return true;
    }

    /// <summary>Kills the process; one that has ended is fine, also when somebody else has let go of it since.</summary>
    internal void Kill()
    {
        try
        {
            Process.Kill();
        }
        catch (ObjectDisposedException)
        {
            // Its end was seen: a stop met it.
        }
    }

    private async Task<ProcessEnd?> WatchAsync()
    {
        ProcessEnd? end;
        do
        {
            await _client.Closed.ConfigureAwait(false);
            end = await EndedOrConnectedAsync().ConfigureAwait(false);
        }
        while (end is null && !_disposed);
        return end;
    }

    /// <summary>The end of the process; null when there is a connection again, or this object is disposed.</summary>
    private async Task<ProcessEnd?> EndedOrConnectedAsync()
    {
        long lost = Environment.TickCount64;
        bool told = false;
        for (int delay = 1; !_disposed; delay = Math.Min(delay * 2, told ? 2000 : 50))
        {
            if (Process.Wait(0) is { } end)
            {
                return end;
            }

            double since = Environment.TickCount64 - lost;
            if (!_needed)
            {
                if (since > _options.StopTimeout.TotalMilliseconds)
                {
                    _kill();
                }
            }
            else if (since > _reconnects.Pause.TotalMilliseconds)
            {
                if (!told)
                {
                    told = true;
                    Tell(connected: false);
                }

                if (await TryConnectAsync().ConfigureAwait(false))
                {
                    return null;
                }
            }

            await Task.Delay(delay).ConfigureAwait(false);
        }

        return null;
    }

    private async Task<bool> TryConnectAsync()
    {
        if (Address is not { } address || _reconnects.TryConnect(address, Process.ProcessId) is not { } socket)
        {
            return false;
        }

        if (!TryReplace(socket))
        {
            socket.Dispose();
            return false;
        }

        try
        {
            await _greet().ConfigureAwait(false);
            Tell(connected: true);
        }
        catch (WorkerException)
        {
            // It hangs, or this connection has ended, too: who waits for its end sees that.
        }

        return true;
    }

    private bool TryReplace(PacketSocket socket)
    {
        ControlClient old = _client;
        lock (_lock)
        {
            if (_disposed)
            {
                return false;
            }

            try
            {
                _client = new ControlClient(socket, _options.AnswerTimeout, _onEvent);
            }
            catch (SocketException)
            {
                return false; // this daemon is out of descriptors: the next try may find some
            }
        }

        old.Dispose(); // its reading task has ended
        return true;
    }

    private void Tell(bool connected)
    {
        Action<bool>[] handlers;
        lock (_lock)
        {
            handlers = [.. _handlers];
        }

        foreach (Action<bool> handler in handlers)
        {
            handler(connected);
        }
    }
}
