using System.Diagnostics;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.Nbd;

/// <summary>Where the connection of a disk is.</summary>
internal enum NbdLinkState
{
    /// <summary>A socket is asked for, or client and server introduce themselves.</summary>
    Connecting,

    /// <summary>Requests go to the server.</summary>
    Connected,

    /// <summary>It is lost; the next try comes.</summary>
    Waiting,

    /// <summary>The end.</summary>
    Closed,
}

/// <summary>
/// The thread of an NBD disk: it has the connection, and makes it again when it is lost. <see cref="NbdRequests"/> are
/// all nodes'.
/// </summary>
internal sealed class NbdLink : IIoService, IDisposable
{
    private const int LookMilliseconds = 500, FirstPause = 50, LongestPause = 2000, MostReplies = 64;

    private readonly NbdOptions _options;
    private readonly INbdConnector _connector;
    private readonly IoLoop _loop = IoLoop.WithoutRing();
    private readonly IoPoll _socketPoll;
    private readonly IoTimer _timer; // watches a server that should answer, or begins the next try
    private readonly NbdRequests _requests = new();
    private readonly Thread _thread;
    private readonly TaskCompletionSource _opened = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource _end = new();
    private readonly Action _takeIncoming;
    private NbdConnection? _connection;
    private System.Runtime.InteropServices.SafeHandle? _socket;
    private CancellationTokenSource? _connecting;
    private NbdLinkState _state = NbdLinkState.Connecting;
    private long _tryBegan, _nextTry, _lostAt; // ticks of Stopwatch
    private int _tries;
    private bool _ticks, _givenUp, _disposed;
    private volatile bool _isConnected;
    private volatile string? _problem;

    internal NbdLink(NbdOptions options, INbdConnector connector)
    {
        (_options, _connector) = (options, connector);
        _takeIncoming = TakeIncoming;
        _socketPoll = new IoPoll((_, events) => OnSocket(events));
        _loop.Add(_socketPoll);
        _timer = _loop.AddTimer(OnTimer);
        _thread = new Thread(() => _loop.Run(this), maxStackSize: 256 * 1024) { Name = "nbd", IsBackground = true };
    }

    /// <summary>What messages call the disk.</summary>
    internal string Name => _options.Name;

    /// <summary>What the server has; null before it said so. It stays the same for as long as the disk is open.</summary>
    internal NbdShape? Shape { get; private set; }

    /// <summary>The server answers. Any thread.</summary>
    internal bool IsConnected => _isConnected;

    /// <summary>What is wrong with the connection; null when nothing is. Any thread.</summary>
    internal string? Problem => _problem;

    /// <summary>The requests of its nodes.</summary>
    internal NbdRequests Requests => _requests;

    /// <inheritdoc/>
    public bool IsDrained => true;

    /// <summary>Starts the thread and connects for the first time, which is tried once.</summary>
    /// <exception cref="BlockException">It cannot be connected, or no disk can be made of what is there.</exception>
    internal void Open()
    {
        _thread.Start();
        _loop.Post(BeginTry);
        _opened.Task.GetAwaiter().GetResult();
    }

    /// <summary>Takes a request, which its node gets back. Any thread.</summary>
    internal void Submit(BlockRequest request)
    {
        if (_requests.Add(request))
        {
            _loop.Post(_takeIncoming);
        }
    }

    /// <summary>Says goodbye to the server. No node has a request here any more.</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        _end.Cancel(); // a try that goes on ends, and what it got is closed
        if (_thread.IsAlive)
        {
            _loop.Stop();
            _thread.Join();
        }

        _loop.Dispose();
        _requests.Dispose();
        _end.Dispose();
    }

    public void BeginRound() { }

    public bool Serve() => false;

    /// <summary>What the socket is waited for changes with what the connection does: it is begun anew before each sleep.</summary>
    public bool PrepareSleep()
    {
        if (_connection is { } connection)
        {
            _loop.CallOff(_socketPoll);
            _loop.WatchOnce(_socketPoll, _socket!, connection.Waits);
        }

        return false;
    }

    public void Stopping()
    {
        if (_state == NbdLinkState.Connected)
        {
            _connection!.SayGoodbye();
        }

        if (_state != NbdLinkState.Closed)
        {
            Move(NbdLinkState.Closed);
        }

        CloseConnection();
    }

    private void TakeIncoming()
    {
        _requests.TakeIncoming();
        Pump();
    }

    // Issues what waits, or fails it when nobody waits for the server any more.
    private void Pump()
    {
        if (_givenUp)
        {
            _requests.FailWaiting(flushesOnly: false);
        }

        if (_state == NbdLinkState.Connected && !_requests.Issue(_connection!, Shape!))
        {
            Lose(_connection!.Failure ?? "the server closed the connection"); // while something was sent to it
        }
        else if (_state == NbdLinkState.Connected && _requests.InFlight > 0 && !_ticks)
        {
            Tick();
        }
    }

    private void OnSocket(PollEvents events)
    {
        if (_connection is not { } connection)
        {
            return;
        }

        // One call takes one reply. Without anything to read it must not be called: the library would wait for a reply then, and issue
        // nothing before one came. A server that says more and more does not keep the thread from its timers.
        PollEvents now = events;
        for (int i = 0; i < MostReplies && now != PollEvents.None && connection.State != NbdState.Over; i++, now = connection.Look())
        {
            if ((now & ~PollEvents.Readable) != 0)
            {
                connection.Writable();
            }

            if ((now & ~PollEvents.Writable) != 0)
            {
                connection.Readable(); // also for hang-up and error: it finds out what is the matter
            }

            _requests.TakeEnds(connection);
        }

        if (connection.State == NbdState.Over || _requests.ServerEnds)
        {
            Lose(_state == NbdLinkState.Connecting ? $"the server did not let us in: {connection.Failure ?? "it closed the connection"}"
                : _requests.ServerEnds ? "the server shuts down"
                : connection.Failure ?? "the server closed the connection");
        }
        else if (connection.State == NbdState.Connected && _state == NbdLinkState.Connecting)
        {
            Connected(connection);
        }
        else if (_state == NbdLinkState.Connected)
        {
            Pump();
        }
    }

    // A socket is asked for.
    private void BeginTry()
    {
        if (_state == NbdLinkState.Waiting)
        {
            Move(NbdLinkState.Connecting);
        }

        _tryBegan = Stopwatch.GetTimestamp();
        _connecting = CancellationTokenSource.CreateLinkedTokenSource(_end.Token);
        CancellationTokenSource own = _connecting;
        CancellationToken cancel = own.Token;
        _ = Task.Run(() => _connector.ConnectAsync(cancel), cancel).ContinueWith(asked =>
        {
            if (!_loop.Post(() => Arrived(asked, own)))
            {
                DropSocket(asked);
            }
        }, TaskScheduler.Default);
        Tick();
    }

    // The socket of a try is there, or cannot be had.
    private void Arrived(Task<FileDescriptorHandle> asked, CancellationTokenSource own)
    {
        if (!ReferenceEquals(own, _connecting) || _state != NbdLinkState.Connecting)
        {
            DropSocket(asked); // nobody waits for it any more
            return;
        }

        bool talks = false;
        try
        {
            using FileDescriptorHandle socket = asked.GetAwaiter().GetResult();
            _connection = new NbdConnection(NbdCommands.Depth, _options.Export, _options.Tls);
            talks = true; // a quick server may refuse us inside the call that begins
            _connection.Begin(socket);
            _socket = _connection.BorrowSocket();
            OnSocket(PollEvents.None);
        }
#pragma warning disable CA1031 // Whatever it is, the server cannot be reached this time.
        catch (Exception cause)
#pragma warning restore CA1031
        {
            Lose(talks ? $"the server did not let us in: {cause.Message}" : cause.Message);
        }
    }

    private static void DropSocket(Task<FileDescriptorHandle> asked)
    {
        if (asked.IsCompletedSuccessfully)
        {
            asked.Result.Dispose();
        }
        else
        {
            _ = asked.Exception; // seen
        }
    }

    private void Connected(NbdConnection connection)
    {
        NbdExport export = connection.Export();
        bool isFirst = Shape is null;
        if (Shape?.WhyNot(export) is { } why)
        {
            Lose(why);
            return;
        }

        try
        {
            Shape ??= new NbdShape(Name, export, _options.ReadOnly);
        }
        catch (BlockException cause)
        {
            EndFirstTry(cause);
            return;
        }

        Move(NbdLinkState.Connected);
        (_isConnected, _problem, _givenUp) = (true, null, false);
        _opened.TrySetResult();
        if (!isFirst)
        {
            _options.Changed?.Invoke(new NbdReport(IsConnected: true, IsGivenUp: false, Why: null));
        }

        Pump();
    }

    // The connection is over, or could not be made.
    private void Lose(string why)
    {
        _problem = why;
        CloseConnection();
        if (!_opened.Task.IsCompleted)
        {
            EndFirstTry(NbdShape.Refused(Name, BlockErrorKind.Io, why));
            return;
        }

        bool wasConnected = _state == NbdLinkState.Connected, wasIdle = _requests.IsIdle;
        _requests.TakeBack(Shape!);
        if (wasConnected)
        {
            _isConnected = false;
            if (Shape!.CanFlush && !_options.KeepsUnflushed)
            {
                _requests.LoseWrites();
            }

            // A server that was asked and answered nothing between two losses has not been back.
            (_lostAt, _tries) = _requests.IsAnswered || wasIdle ? (Stopwatch.GetTimestamp(), 0) : (_lostAt, _tries);
            _requests.IsAnswered = false;
            _options.Changed?.Invoke(new NbdReport(IsConnected: false, IsGivenUp: false, why));
        }

        Move(NbdLinkState.Waiting);
        int pause = _tries == 0 ? 0 : Math.Min(LongestPause, FirstPause << Math.Min(_tries - 1, 10));
        _tries++;
        _nextTry = Stopwatch.GetTimestamp() + (pause * Stopwatch.Frequency / 1000);
        Tick();
    }

    private void EndFirstTry(BlockException cause)
    {
        CloseConnection();
        Move(NbdLinkState.Closed);
        _opened.TrySetException(cause);
    }

    private void OnTimer()
    {
        _ticks = false;
        long now = Stopwatch.GetTimestamp();
        switch (_state)
        {
            case NbdLinkState.Connected when _requests.IsAnyOlderThan(_options.Timeout):
                Lose($"the server has left a command without an answer for {_options.Timeout.TotalSeconds:0.#} s");
                break;
            case NbdLinkState.Connecting when Stopwatch.GetElapsedTime(_tryBegan, now) > _options.Timeout / 2:
                Lose($"the server does not answer within {_options.Timeout.TotalSeconds / 2:0.#} s");
                break;
            case NbdLinkState.Waiting when now >= _nextTry:
                BeginTry();
                break;
            default:
                break;
        }

        if (_state is NbdLinkState.Connecting or NbdLinkState.Waiting && _opened.Task.IsCompleted)
        {
            GiveUpInTime();
        }

        if (_state != NbdLinkState.Closed && (_state != NbdLinkState.Connected || _requests.InFlight > 0))
        {
            Tick();
        }
    }

    private void GiveUpInTime()
    {
        if (!_givenUp && Stopwatch.GetElapsedTime(_lostAt) >= _options.Reconnect)
        {
            _givenUp = true;
            _options.Changed?.Invoke(new NbdReport(IsConnected: false, IsGivenUp: true, _problem));
        }

        if (_givenUp)
        {
            _requests.FailWaiting(flushesOnly: false);
        }
    }

    private void Tick()
    {
        long left = _state == NbdLinkState.Waiting ? (_nextTry - Stopwatch.GetTimestamp()) * 1000 / Stopwatch.Frequency : LookMilliseconds;
        _ticks = true;
        _timer.Set((int)Math.Clamp(left, 1, LookMilliseconds));
    }

    private void CloseConnection()
    {
        _connecting?.Cancel();
        _connecting?.Dispose();
        _connecting = null;
        _requests.ServerEnds = false;
        if (_connection is { } connection)
        {
            _loop.CallOff(_socketPoll);
            _connection = null;
            _socket = null;
            connection.Dispose(); // from now on nothing touches the memory of requests
        }
    }

    private void Move(NbdLinkState to)
    {
        bool isMove = (_state, to) switch
        {
            (NbdLinkState.Connecting, NbdLinkState.Connected or NbdLinkState.Waiting) => true,
            (NbdLinkState.Connected, NbdLinkState.Waiting) => true,
            (NbdLinkState.Waiting, NbdLinkState.Connecting) => true,
            (not NbdLinkState.Closed, NbdLinkState.Closed) => true,
            _ => false,
        };
        _state = isMove ? to : throw new InvalidOperationException($"A connection that is {_state} cannot become {to}.");
    }
}
