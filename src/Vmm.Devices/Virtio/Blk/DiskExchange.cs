using System.Diagnostics;
using Vmm.Storage;

namespace Vmm.Devices.Virtio.Blk;

/// <summary>
/// Puts another disk behind the queues of a device that works: every queue is held and drained, every thread makes its node of the new
/// disk, and only then all of them go on there. What goes wrong before leaves everything where it was.
/// </summary>
/// <param name="gate">Guards the threads.</param>
/// <param name="threads">Those that serve the device now.</param>
internal sealed class DiskExchange(Lock gate, List<BlkThread> threads)
{
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(20); // at a thread that may have ended meanwhile

    /// <summary>Exchanges the disk.</summary>
    /// <param name="next">The new one.</param>
    /// <param name="patience">How long storage may take with what is in flight.</param>
    /// <param name="commit">
    /// Called when nothing is in flight anywhere, under the gate: from then on the device has the new disk. It may throw.
    /// </param>
    /// <returns>Ends when no queue has a node of the old disk any more.</returns>
    /// <exception cref="TimeoutException">Storage took longer.</exception>
    /// <exception cref="BlockException">The host has no resources for the new disk's nodes.</exception>
    internal Task RunAsync(IDiskBackend next, TimeSpan patience, Action commit)
    {
        long begin = Stopwatch.GetTimestamp();
        Dictionary<BlkThread, NextDisk> held = [];
        try
        {
            while (true)
            {
                HoldAll(next, held);
                foreach ((BlkThread thread, NextDisk disk) in held)
                {
                    Await(thread, disk, patience - Stopwatch.GetElapsedTime(begin));
                }

                lock (gate)
                {
                    if (threads.TrueForAll(held.ContainsKey)) // else the driver activated the device anew
                    {
                        commit();
                        return Task.WhenAll(held.Select(pair => pair.Key.AdoptAsync(pair.Value)));
                    }
                }
            }
        }
        catch
        {
            foreach ((BlkThread thread, NextDisk disk) in held)
            {
                thread.Abandon(disk);
            }

            throw;
        }
    }

    private void HoldAll(IDiskBackend next, Dictionary<BlkThread, NextDisk> held)
    {
        lock (gate)
        {
            foreach (BlkThread thread in threads.Where(thread => !held.ContainsKey(thread)))
            {
                held[thread] = thread.Prepare(new NextDisk(next));
            }
        }
    }

    private static void Await(BlkThread thread, NextDisk disk, TimeSpan patience)
    {
        long begin = Stopwatch.GetTimestamp();
        while (!disk.Ready.Wait(s_look) && !thread.Join(TimeSpan.Zero))
        {
            if (Stopwatch.GetElapsedTime(begin) > patience)
            {
                throw new TimeoutException("requests in flight did not end in time");
            }
        }

        if (disk.Problem is { } problem)
        {
            throw problem;
        }
    }
}

/// <summary>The disk that the queues of one thread are to go on with.</summary>
internal sealed class NextDisk(IDiskBackend disk)
{
    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>The disk.</summary>
    internal IDiskBackend Disk => disk;

    /// <summary>The thread's node of it; of the loop's thread.</summary>
    internal IBlockNode? Node { get; set; }

    /// <summary>Set when the queues are drained and there is a node, or there is a problem. Not disposed: a thread may come late.</summary>
    internal ManualResetEventSlim Ready { get; } = new();

    /// <summary>Why there is no node.</summary>
    internal BlockException? Problem { get; set; }

    /// <summary>Ends when the thread has no node of the old disk any more.</summary>
    internal Task Closed => _closed.Task;

    /// <summary>The node of the old disk is closed.</summary>
    internal void SetClosed() => _closed.TrySetResult();
}
