using System.Collections.Concurrent;
using System.Net.Sockets;
using System.Text.Json;
using Vmm.Contracts;
using Vmm.Contracts.Control;
using Vmm.Interop;

namespace Vmm.Daemon.Workers;

/// <summary>
/// The daemon's end of a worker's control channel: requests and their answers, events to a handler. A worker is not trusted: what it sends
/// is checked here.
/// </summary>
internal sealed class ControlClient : IDisposable
{
    private const int SendTimeout = 5000, MostDescriptors = 1;

    private readonly PacketSocket _socket;
    private readonly Socket _waiter;
    private readonly Action<ControlFrame> _onEvent;
    private readonly TimeSpan _timeout;
    private readonly ConcurrentDictionary<long, TaskCompletionSource<Answer>> _calls = new();
    private readonly byte[] _buffer = new byte[ControlCodec.MaxFrame];
    private readonly CancellationTokenSource _closing = new();
    private readonly Lock _sending = new();
    private readonly EventBudget _budget = new();
    private int _pause; // milliseconds that the reader waits, since the worker said too much unasked
    private long _lastId;
    private volatile bool _over;

    /// <summary>Takes over a connection and starts to read. <paramref name="onEvent"/> is called from the reading task.</summary>
    internal ControlClient(PacketSocket socket, TimeSpan timeout, Action<ControlFrame> onEvent)
    {
        _socket = socket;
        _timeout = timeout;
        _onEvent = onEvent;
        // Only to wait without a thread: packets are taken by the shim, which knows descriptors.
        _waiter = new Socket(new SafeSocketHandle(socket.Handle.Number, ownsHandle: false));
        Closed = Task.Run(ReadAsync);
    }

    /// <summary>Completes when nothing more will come: the worker hung up, sent nonsense, or this end was closed.</summary>
    internal Task Closed { get; }

    /// <summary>What the worker speaks; null until it said hello on this connection.</summary>
    internal ControlPeer? Peer { get; set; }

    /// <summary>
    /// Sends a request and waits for its answer; one that takes the guest's time has <paramref name="longer"/> in addition.
    /// </summary>
    /// <exception cref="WorkerException">Refused, no answer in time, or the worker is gone.</exception>
    internal async Task<Answer> CallAsync(
        string kind,
        JsonElement? body,
        IReadOnlyList<string>? names,
        FileDescriptorHandle[] descriptors,
        CancellationToken cancellation,
        TimeSpan longer = default)
    {
        TimeSpan timeout = _timeout + longer;
        long id = Interlocked.Increment(ref _lastId);
        TaskCompletionSource<Answer> call = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _calls[id] = call;
        bool answered = false;
        try
        {
            Send(Frames(id, kind, body, names ?? []), kind, descriptors);

            if (_over)
            {
                throw Gone(kind, null);
            }

            Answer answer = await call.Task.WaitAsync(timeout, cancellation).ConfigureAwait(false);
            answered = true;
            return answer;
        }
        catch (TimeoutException cause)
        {
            throw new WorkerException(
                ControlCodes.WorkerTimeout, $"the worker did not answer \"{kind}\" within {timeout.TotalSeconds:0} s", cause);
        }
        finally
        {
            // Removed by the reader: the answer came while the caller gave up. Nobody takes its descriptor.
            if (!_calls.TryRemove(id, out _) && !answered)
            {
                _ = call.Task.ContinueWith(
                    static late => late.Result.Descriptor?.Dispose(), CancellationToken.None, TaskContinuationOptions.OnlyOnRanToCompletion,
                    TaskScheduler.Default);
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _closing.Cancel();
        Closed.Wait(TimeSpan.FromSeconds(5));
        _waiter.Dispose();
        _socket.Dispose();
        _closing.Dispose();
    }

    private static WorkerException Gone(string kind, Exception? cause) =>
        new(ControlCodes.WorkerDied, $"the worker is gone, or its connection is: \"{kind}\" was not answered", cause);

    /// <summary>One frame, and behind it those for the descriptors that it has no room for.</summary>
    /// <exception cref="WorkerException">Too long, or too many descriptors.</exception>
    private List<byte[]> Frames(long id, string kind, JsonElement? body, IReadOnlyList<string> names)
    {
        if (names.Count > ControlCodec.MaxRequestDescriptors)
        {
            throw new WorkerException(ControlCodes.RequestTooLarge, $"\"{kind}\" needs {names.Count} descriptors, at most "
                + $"{ControlCodec.MaxRequestDescriptors} can be passed: give the VM fewer disks or queues");
        }

        if (names.Count > ControlCodec.MaxDescriptors && Peer?.Can(ControlVersion.ManyDescriptors) != true)
        {
            throw new WorkerException(
                ControlCodes.WorkerTooOld,
                $"\"{kind}\" needs {names.Count} descriptors, and this VM's worker, of an earlier release, takes "
                    + $"{ControlCodec.MaxDescriptors}: stop the VM and start it again");
        }

        try
        {
            List<byte[]> frames = [];
            for (int at = 0; at == 0 || at < names.Count; at += ControlCodec.MaxDescriptors)
            {
                string[] part = [.. names.Skip(at).Take(ControlCodec.MaxDescriptors)];
                int behind = names.Count - part.Length;
                frames.Add(ControlCodec.Encode(new ControlFrame
                {
                    Id = id,
                    Kind = at == 0 ? kind : ControlKinds.More,
                    Body = at == 0 ? body : null,
                    Descriptors = part.Length > 0 ? part : null,
                    MoreDescriptors = at == 0 && behind > 0 ? behind : null,
                }));
            }

            return frames;
        }
        catch (ArgumentException cause)
        {
            throw new WorkerException(ControlCodes.RequestTooLarge, cause.Message, cause);
        }
    }

    /// <summary>Sends the frames of one request with nothing in between.</summary>
    private void Send(List<byte[]> frames, string kind, FileDescriptorHandle[] descriptors)
    {
        try
        {
            lock (_sending)
            {
                for (int i = 0; i < frames.Count; i++)
                {
                    int at = i * ControlCodec.MaxDescriptors;
                    _socket.Send(
                        frames[i], descriptors.AsSpan(at, Math.Min(descriptors.Length - at, ControlCodec.MaxDescriptors)), SendTimeout);
                }
            }
        }
        catch (KernelException cause) when (cause.Errno == Errno.ETIMEDOUT)
        {
            throw new WorkerException(
                ControlCodes.WorkerTimeout, $"the worker did not take \"{kind}\" within {SendTimeout / 1000} s", cause);
        }
        catch (KernelException cause) when (cause.Errno is not (Errno.EPIPE or Errno.ECONNRESET or Errno.ENOTCONN))
        {
            throw new WorkerException(ControlCodes.RequestFailed, $"\"{kind}\" could not be sent to the worker: {cause.Message}", cause);
        }
        catch (Exception cause) when (cause is KernelException or ObjectDisposedException)
        {
            throw Gone(kind, cause);
        }
    }

    private async Task ReadAsync()
    {
        byte[] peek = new byte[1];
        try
        {
            do
            {
                if (_pause > 0)
                {
                    await Task.Delay(_pause, _closing.Token).ConfigureAwait(false);
                    _pause = 0;
                }

                if (await _waiter.ReceiveAsync(peek, SocketFlags.Peek, _closing.Token).ConfigureAwait(false) == 0)
                {
                    break;
                }
            }
            while (TakeAll());
        }
        catch (Exception cause) when (cause is SocketException or OperationCanceledException or ObjectDisposedException or KernelException)
        {
            // Ended one way or the other.
        }

        _over = true;
        foreach (long id in _calls.Keys)
        {
            if (_calls.TryRemove(id, out TaskCompletionSource<Answer>? call))
            {
                call.TrySetException(Gone("the request", null));
            }
        }
    }

    // False at the end, and at the first thing that is not a sound frame.
    private bool TakeAll()
    {
        while (true)
        {
            PacketKind kind = _socket.Receive(_buffer, MostDescriptors, out int length, out FileDescriptorHandle[] descriptors);
            if (kind != PacketKind.Packet)
            {
                return kind == PacketKind.Empty;
            }

            ControlFrame? frame = ControlCodec.TryDecode(_buffer.AsSpan(0, length), descriptors.Length, out _);
            bool taken = false;
            bool sound = frame is not null;
            bool asked = frame is { Id: > 0 } && _calls.ContainsKey(frame.Id);
            if (!asked)
            {
                _pause = _budget.Charge(length);
            }

            if (frame is { Id: 0 })
            {
                sound = Handle(frame);
            }
            else if (frame is not null && _calls.TryRemove(frame.Id, out TaskCompletionSource<Answer>? call))
            {
                taken = Complete(call, frame, descriptors);
            }

            if (!taken)
            {
                foreach (FileDescriptorHandle descriptor in descriptors)
                {
                    descriptor.Dispose();
                }
            }

            if (!sound)
            {
                return false;
            }

            if (_pause > 0)
            {
                return true;
            }
        }
    }

    // Whatever a handler meets, the reading task ends in order: who waits for Closed goes on.
    private bool Handle(ControlFrame frame)
    {
        try
        {
            _onEvent(frame);
            return true;
        }
#pragma warning disable CA1031 // The connection is made anew then, and the state learnt anew.
        catch (Exception)
#pragma warning restore CA1031
        {
            return false;
        }
    }

    private static bool Complete(TaskCompletionSource<Answer> call, ControlFrame frame, FileDescriptorHandle[] descriptors)
    {
        if (string.Equals(frame.Kind, ControlKinds.Ok, StringComparison.Ordinal))
        {
            return call.TrySetResult(new Answer(frame, descriptors.Length > 0 ? descriptors[0] : null));
        }

        bool readable = ControlCodec.TryBody(frame, ControlJson.Default.ControlError, out ControlError? error, out string problem);
        call.TrySetException(readable
            ? TooOld(WorkerCheck.Error(error!))
            : new WorkerException(ControlCodes.BadAnswer, $"the worker answered nonsense: {SafeText.Line(problem, 1024)}"));
        return false;
    }

    private static WorkerException TooOld(WorkerException error) => error.Code is not ControlCodes.UnknownKind ? error
        : new WorkerException(
            ControlCodes.WorkerTooOld,
            $"this VM's worker is of an earlier release: {error.Message}; stop the VM and start it again",
            error);

    internal readonly record struct Answer(ControlFrame Frame, FileDescriptorHandle? Descriptor);
}
