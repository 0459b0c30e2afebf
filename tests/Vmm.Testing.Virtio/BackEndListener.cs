using Vmm.Interop;

namespace Vmm.Testing.Virtio;

/// <summary>Listens, and has a back end of its own for each connection.</summary>
public sealed class BackEndListener : IDisposable
{
    private readonly UnixListener _listener;
    private readonly Thread _thread;
    private readonly List<ServingBackEnd> _all = [];
    private volatile bool _over;

    public BackEndListener(string path, Func<FileDescriptorHandle, int, ServingBackEnd> make)
    {
        _listener = new UnixListener(path);
        _thread = new Thread(() =>
        {
            while (!_over)
            {
                Span<PollEntry> one = [new PollEntry(_listener.Handle, read: true)];
                _ = Poll.Wait(one, 20);
                if (_listener.Accept() is { } stream)
                {
                    lock (_all)
                    {
                        _all.Add(make(new FileDescriptorHandle(stream.Detach()), _all.Count + 1));
                        _all[^1].Start();
                    }
                }
            }
        }) { IsBackground = true };
        _thread.Start();
    }

    public int Count
    {
        get
        {
            lock (_all)
            {
                return _all.Count;
            }
        }
    }

    public ServingBackEnd Last
    {
        get
        {
            lock (_all)
            {
                return _all[^1];
            }
        }
    }

    public Exception? Failure
    {
        get
        {
            lock (_all)
            {
                return _all.Select(end => end.Failure).FirstOrDefault(failure => failure is not null);
            }
        }
    }

    public void Dispose()
    {
        _over = true;
        _thread.Join();
        _listener.Dispose();
        _all.ForEach(end => end.Dispose());
    }
}
