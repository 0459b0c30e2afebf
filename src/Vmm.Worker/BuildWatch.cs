using Vmm.Interop;

namespace Vmm.Worker;

/// <summary>
/// Watches the connection of the daemon that asked for a VM while the VM is built. To build takes minutes with huge pages, and nobody can
/// find this worker before it listens. When that daemon goes, the process ends at once: memory, user and disk locks are free for the next
/// start.
/// </summary>
internal sealed class BuildWatch : IDisposable
{
    private readonly PacketSocket _asker;
    private readonly EventFd _built = new();
    private readonly Thread _thread;

    /// <summary>Starts to watch.</summary>
    /// <param name="asker">The connection; must stay open until this is disposed.</param>
    internal BuildWatch(PacketSocket asker)
    {
        _asker = asker;
        _thread = new Thread(Watch, maxStackSize: 128 * 1024) { Name = "build-watch", IsBackground = true };
        _thread.Start();
    }

    /// <summary>Stops to watch; the thread is gone when this returns.</summary>
    public void Dispose()
    {
        _built.Signal();
        _thread.Join();
        _built.Dispose();
    }

    private void Watch()
    {
        Span<PollEntry> polls = stackalloc PollEntry[2];
        while (true)
        {
            polls[0] = new PollEntry(_asker.Handle, read: false); // POLLHUP is told without being asked for (poll(2))
            polls[1] = new PollEntry(_built.Handle, read: true);
            Poll.Wait(polls, -1);
            if (polls[1].Readable)
            {
                return;
            }

            if (polls[0].Readable)
            {
                Console.Error.WriteLine(
                    $"vmm-worker {Environment.ProcessId}: vmmd went while the VM was built: nobody would find it, so it is given up");
                Environment.Exit(3);
            }
        }
    }
}
