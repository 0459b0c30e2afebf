using Vmm.Interop;
using Vmm.Storage.Nbd;
using Vmm.Storage.NbdServing;

namespace Vmm.Storage.Tests.NbdServing;

/// <summary>Our NBD server on a thread, at a socket of its own.</summary>
internal sealed class OwnServer : IDisposable
{
    private readonly IDiskBackend _disk;
    private readonly Thread _thread;
    private readonly TaskCompletionSource<NbdDiskServer> _made = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<NbdServerEnd> _end = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private bool _stopped;

    public OwnServer(IDiskBackend disk, NbdServerOptions? options = null)
    {
        _disk = disk;
        UnixListener listener = new(Socket);
        _thread = new Thread(() => Run(listener, options ?? new NbdServerOptions { Linger = TimeSpan.FromMinutes(5) }));
        _thread.Start();
        Server = _made.Task.GetAwaiter().GetResult();
    }

    public string Socket { get; } = Path.Combine(Path.GetTempPath(), "own-" + Guid.NewGuid().ToString("N")[..12] + ".sock");

    public NbdDiskServer Server { get; }

    public Task<NbdServerEnd> End => _end.Task;

    public NbdBackend Open(NbdOptions? options = null) =>
        NbdBackend.Open(options ?? new NbdOptions { Name = "own" }, NbdDialer.Unix(Socket));

    public UnixStream Connect() => UnixStream.Connect(Socket, out int errno) ?? throw new KernelException("connect", errno);

    public void Dispose()
    {
        if (_stopped)
        {
            return;
        }

        _stopped = true;
        Server.Stop();
        if (_end.Task.IsFaulted)
        {
            _end.Task.GetAwaiter().GetResult(); // whatever else failed, failed for that
        }

        Assert.True(_thread.Join(TimeSpan.FromSeconds(60)), "the server does not end");
        _disk.Dispose();
        File.Delete(Socket);
    }

    private void Run(UnixListener listener, NbdServerOptions options)
    {
        NbdDiskServer server;
        try
        {
            server = new NbdDiskServer(_disk, listener, options);
            _made.SetResult(server);
        }
#pragma warning disable CA1031 // the test hears of it
        catch (Exception cause)
#pragma warning restore CA1031
        {
            _made.SetException(cause);
            return;
        }

        try
        {
            NbdServerEnd end = server.Run();
            if (end != NbdServerEnd.Stuck)
            {
                server.Dispose();
            }

            _end.SetResult(end);
        }
#pragma warning disable CA1031 // the test hears of it
        catch (Exception cause)
#pragma warning restore CA1031
        {
            _end.SetException(cause);
        }
    }
}
