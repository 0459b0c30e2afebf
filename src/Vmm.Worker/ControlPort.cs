using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Worker;

/// <summary>
/// The worker's side of the control channel: one connection at a time, the next one through the passed listener. The main thread receives;
/// any thread sends. Its loop has no ring: a worker answers also where io_uring is switched off.
/// </summary>
internal sealed class ControlPort : IIoService, IDisposable
{
    private const int SendTimeout = 2000, AcceptPause = 1000; // milliseconds

    private readonly uint _masterUser;
    private readonly Action<ControlFrame, Dictionary<string, FileDescriptorHandle>> _received;
    private readonly Lock _sending = new();
    private readonly byte[] _buffer = new byte[ControlCodec.MaxFrame];
    private readonly IoLoop _loop = IoLoop.WithoutRing();
    private readonly IoPoll _ready;
    private readonly IoTimer _acceptAgain;
    private Func<bool> _isNeeded = () => true;
    private PacketSocket? _connection;
    private FileDescriptorHandle? _listener;
    private PartialRequest? _partial;
    private bool _watching, _wasReady, _paused, _isOver;

    /// <summary>Makes the port.</summary>
    /// <param name="first">The connection that the worker was started with; it stays the caller's as long as no other comes.</param>
    /// <param name="masterUser">Whose daemon is heard.</param>
    /// <param name="received">Takes each whole request and its descriptors; on the thread that serves.</param>
    internal ControlPort(PacketSocket first, uint masterUser, Action<ControlFrame, Dictionary<string, FileDescriptorHandle>> received)
    {
        _connection = first;
        _masterUser = masterUser;
        _received = received;
        _ready = new IoPoll((_, _) => Ready());
        _loop.Add(_ready);
        _acceptAgain = _loop.AddTimer(() => _paused = false);
    }

    /// <summary>The daemon's connection; null while there is none.</summary>
    internal PacketSocket? Connection => _connection;

    /// <inheritdoc/>
    public void Dispose()
    {
        Drop(ref _partial);
        _loop.Dispose();
        _listener?.Dispose();
    }

    /// <summary>Where later daemons connect; owned by the port from now on.</summary>
    internal void ListenOn(FileDescriptorHandle listener) => _listener = listener;

    /// <summary>
    /// Receives requests and takes new connections until nobody needs it any more: asked after each, or when <paramref name="over"/> was
    /// signalled and nothing else waits. The caller's thread is the one that hears every request.
    /// </summary>
    internal void Serve(EventFd over, Func<bool> isNeeded)
    {
        _isNeeded = isNeeded;
        Doorbell end = _loop.Watch(over, () => _isOver = true);
        _loop.Run(this);
        _loop.Unwatch(end);
    }

    /// <inheritdoc/>
    bool IIoService.IsDrained => true;

    /// <inheritdoc/>
    void IIoService.BeginRound() => _wasReady = false;

    /// <inheritdoc/>
    bool IIoService.Serve()
    {
        if (!_isNeeded() || (_isOver && !_wasReady))
        {
            _loop.Stop();
        }
        else if (!_watching && !_paused && (_connection?.Handle ?? _listener) is { } file)
        {
            _watching = true;
            _loop.WatchOnce(_ready, file, PollEvents.Readable);
        }

        return _wasReady;
    }

    /// <inheritdoc/>
    bool IIoService.PrepareSleep() => false;

    /// <inheritdoc/>
    void IIoService.Stopping()
    {
    }

    private void Ready()
    {
        _watching = false;
        _wasReady = true;
        if (_connection is null)
        {
            Accept();
        }
        else if (!Receive(_connection))
        {
            Attach(null);
        }
    }

    /// <summary>Tells something that nobody asked for; false when nobody hears it.</summary>
    internal bool Tell<T>(string kind, T body, JsonTypeInfo<T> type) => Send(0, kind, ControlCodec.Body(body, type));

    // A daemon that does not read loses messages, then its connection shows the damage; the VM goes on in any case.
    // With an asker it goes to that connection or nowhere: numbers of requests begin anew with each.
    internal bool Send(long id, string kind, JsonElement? body, FileDescriptorHandle? descriptor = null, PacketSocket? asker = null)
    {
        string[]? names = descriptor is null ? null : ["console"];
        byte[] bytes = ControlCodec.Encode(new ControlFrame { Id = id, Kind = kind, Body = body, Descriptors = names });
        lock (_sending)
        {
            if (_connection is not { } connection || (asker is not null && !ReferenceEquals(asker, connection)))
            {
                return false;
            }

            try
            {
                connection.Send(bytes, descriptor is null ? [] : [descriptor], SendTimeout);
                return true;
            }
            catch (KernelException)
            {
                return false; // the reading side sees the end of the connection and lets it go
            }
        }
    }

    private void Attach(PacketSocket? connection)
    {
        Drop(ref _partial); // the rest of it will not come
        lock (_sending)
        {
            _connection?.Dispose();
            _connection = connection;
        }
    }

    // The directory of the socket keeps strangers out; this keeps out those who got in all the same.
    private void Accept()
    {
        PacketSocket? next = null;
        try
        {
            next = PacketListener.Accept(_listener!);
            if (next.Peer.UserId == _masterUser)
            {
                Attach(next);
                return;
            }
        }
        catch (KernelException cause)
        {
            // Out of descriptors, say: no reason to end the VM. Whoever waits is accepted later.
            Console.Error.WriteLine($"vmm-worker {Environment.ProcessId}: {cause.Message}");
            _paused = true;
            _acceptAgain.Set(AcceptPause);
        }

        next?.Dispose();
    }

    // False when the connection is no good any more.
    private bool Receive(PacketSocket connection)
    {
        PacketKind kind;
        int length;
        FileDescriptorHandle[] descriptors;
        try
        {
            kind = connection.Receive(_buffer, ControlCodec.MaxDescriptors, out length, out descriptors);
        }
        catch (KernelException)
        {
            return false; // a broken connection: the daemon makes another
        }

        if (kind != PacketKind.Packet)
        {
            return kind switch
            {
                PacketKind.Empty => true,
                PacketKind.TooLarge => Unsound("too long, or too many descriptors"),
                _ => false,
            };
        }

        if (ControlCodec.TryDecode(_buffer.AsSpan(0, length), descriptors.Length, out string problem) is not { } frame)
        {
            foreach (FileDescriptorHandle descriptor in descriptors)
            {
                descriptor.Dispose();
            }

            return Unsound(problem);
        }

        return Take(frame, descriptors);
    }

    /// <summary>A frame, which may be a part of a request: the request is handed on when all of it is there.</summary>
    private bool Take(ControlFrame frame, FileDescriptorHandle[] descriptors)
    {
        bool sound;
        string problem;
        if (_partial is null)
        {
            _partial = PartialRequest.TryBegin(frame, descriptors, out problem);
            sound = _partial is not null;
        }
        else
        {
            sound = _partial.TryAdd(frame, descriptors, out problem);
        }

        if (!sound)
        {
            Drop(ref _partial);
            return Unsound(problem, frame.Id);
        }

        if (_partial!.IsWhole)
        {
            Dictionary<string, FileDescriptorHandle> passed = _partial.Detach();
            ControlFrame request = _partial.Frame;
            Drop(ref _partial);
            _received(request, passed);
        }

        return true;
    }

    private static void Drop(ref PartialRequest? request)
    {
        request?.Dispose();
        request = null;
    }

    /// <summary>Packets keep their borders: behind one that is not sound the next one may be. So the connection stays.</summary>
    private bool Unsound(string problem, long id = 0)
    {
        Send(id, ControlKinds.Error, ControlCodec.Body(new ControlError(ControlCodes.BadFrame, problem), ControlJson.Default.ControlError));
        return true;
    }
}
