using System.Diagnostics;
using Vmm.Interop;
using Vmm.Io;

namespace Vmm.Storage.NbdServing;

/// <summary>How a server is to serve.</summary>
public sealed record NbdServerOptions
{
    /// <summary>The name of the export; clients may leave it out.</summary>
    public string Export { get; init; } = "";

    /// <summary>How long it waits for its first client.</summary>
    public TimeSpan FirstClient { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>How long it waits for the next client when one was lost without a goodbye.</summary>
    public TimeSpan Linger { get; init; } = TimeSpan.FromSeconds(3);

    /// <summary>How long it waits for the disk to end what it has of a client that is gone, when no other one came.</summary>
    public TimeSpan Stuck { get; init; } = TimeSpan.FromSeconds(60);
}

/// <summary>Why a server ended.</summary>
public enum NbdServerEnd
{
    /// <summary>It was told to.</summary>
    Stopped,

    /// <summary>Its client said goodbye.</summary>
    Goodbye,

    /// <summary>No client came, or none came back.</summary>
    NoClient,

    /// <summary>The disk is lost to this process (<see cref="NbdDiskServer.Abort"/>).</summary>
    Lost,

    /// <summary>
    /// No client is there, and the disk does not end what it has of the last one: the process is to end without closing the disk.
    /// </summary>
    Stuck,
}

/// <summary>
/// Serves one disk by the Network Block Device protocol to one client at a time, at a listening unix socket that somebody passed. A client
/// that comes while another one is there takes its place, and is greeted when the disk has ended everything of the one before: what a lost
/// connection left behind never overtakes what is sent again. Ends when its client says goodbye, or stays away.
/// </summary>
public sealed class NbdDiskServer : IIoService, IDisposable
{
    private const int LookMilliseconds = 250;

    private readonly IoLoop _loop = IoLoop.WithoutRing();
    private readonly NbdServerOptions _options;
    private readonly UnixListener _listener;
    private readonly IBlockNode _node;
    private readonly NbdServed _served;
    private readonly IoPoll _poll;
    private readonly IoTimer _timer;
    private NbdServerSession? _session;
    private UnixStream? _next; // greeted when the session is over
    private long _aloneSince = Stopwatch.GetTimestamp();
    private bool _hadClient, _ends;
    private NbdServerEnd _end;

    /// <summary>Makes a server on the thread that will run it.</summary>
    /// <param name="disk">What is served.</param>
    /// <param name="listener">Where clients come; owned from here on.</param>
    /// <param name="options">How.</param>
    public NbdDiskServer(IDiskBackend disk, UnixListener listener, NbdServerOptions options)
    {
        (_options, _listener) = (options, listener);
        _served = new NbdServed(options.Export, disk.Geometry);
        _node = disk.CreateNode(_loop, NbdSlots.Depth);
        _poll = new IoPoll((_, _) => TakeClients());
        _loop.Add(_poll);
        _timer = _loop.AddTimer(OnTimer);
    }

    /// <inheritdoc/>
    public bool IsDrained => _session is null or { IsEnded: true } || _end == NbdServerEnd.Stuck;

    /// <summary>Serves until the end. On the thread that made it.</summary>
    /// <exception cref="BlockException">What was written last may not be on stable storage.</exception>
    public NbdServerEnd Run()
    {
        _timer.Set(LookMilliseconds);
        _loop.Run(this);
        if (_end != NbdServerEnd.Stuck)
        {
            _session?.Dispose();
            _session = null;
            _node.FlushAndClose(_loop);
        }

        return _end;
    }

    /// <summary>Ends it. Any thread.</summary>
    public void Stop() => _loop.Post(() => End(NbdServerEnd.Stopped));

    /// <summary>
    /// The disk is lost to this process: the client gets no more answers, and asks another server again what it was not answered. On the
    /// server's thread.
    /// </summary>
    public void Abort()
    {
        _session?.Abandon();
        End(NbdServerEnd.Lost);
    }

    /// <inheritdoc/>
    public void BeginRound()
    {
    }

    /// <inheritdoc/>
    public bool Serve()
    {
        EndSession();
        _session?.Serve();
        return false;
    }

    /// <inheritdoc/>
    public bool PrepareSleep()
    {
        _loop.CallOff(_poll);
        _loop.WatchOnce(_poll, _listener.Handle, PollEvents.Readable);
        _session?.Watch();
        return false;
    }

    /// <inheritdoc/>
    public void Stopping()
    {
        _loop.CallOff(_poll);
        _next?.Dispose();
        _next = null;
        _session?.Abandon();
    }

    /// <summary>After <see cref="Run"/>; not after <see cref="NbdServerEnd.Stuck"/>, when the disk still writes to its memory.</summary>
    public void Dispose()
    {
        _next?.Dispose();
        _session?.Dispose();
        _listener.Dispose();
        _node.Dispose();
        _loop.Dispose();
    }

    private void TakeClients()
    {
        while (_listener.Accept() is { } client)
        {
            _next?.Dispose();
            _next = client;
        }

        if (_next is not null)
        {
            _session?.Abandon();
        }
    }

    // The session is over when the disk has nothing of it any more; then the next client is greeted.
    private void EndSession()
    {
        if (_session is { IsEnded: true } over)
        {
            bool isGoodbye = over.SaidGoodbye;
            over.Dispose();
            _session = null;
            _aloneSince = Stopwatch.GetTimestamp();
            if (isGoodbye && _next is null)
            {
                End(NbdServerEnd.Goodbye);
            }
        }

        if (_session is null && _next is { } next && !_ends)
        {
            (_next, _hadClient) = (null, true);
            _session = new NbdServerSession(_loop, _node, _served, next);
        }
    }

    private void OnTimer()
    {
        if (_next is { IsPeerGone: true } gone)
        {
            gone.Dispose();
            _next = null;
        }

        bool isAlone = _next is null && _session is null or { IsAbandoned: true };
        if (!isAlone)
        {
            _aloneSince = Stopwatch.GetTimestamp();
        }
        else if (Stopwatch.GetElapsedTime(_aloneSince) >= (_session is not null ? _options.Stuck
            : _hadClient ? _options.Linger : _options.FirstClient))
        {
            End(_session is not null ? NbdServerEnd.Stuck : NbdServerEnd.NoClient);
        }

        _timer.Set(LookMilliseconds);
    }

    private void End(NbdServerEnd end)
    {
        if (!_ends || end == NbdServerEnd.Stuck)
        {
            (_ends, _end) = (true, end);
            _loop.Stop();
        }
    }
}
