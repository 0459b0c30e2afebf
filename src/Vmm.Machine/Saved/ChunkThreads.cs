using System.Runtime.ExceptionServices;

namespace Vmm.Machine.Saved;

/// <summary>
/// Works through the chunks of a memory file with several threads. Each takes the next few chunks in order, so that what a thread sees is
/// ascending. The first that fails ends all.
/// </summary>
internal static class ChunkThreads
{
    private const ulong SlabChunks = 16; // taken at once: neighbours stay with one thread
    private const int MostThreads = 8;

    /// <summary>Returns when every chunk is done.</summary>
    /// <param name="chunks">How many there are.</param>
    /// <param name="worker">Makes what one thread does with a chunk, by its number; called once by each.</param>
    /// <param name="cancel">Ends it.</param>
    /// <exception cref="OperationCanceledException">It was ended.</exception>
    internal static void Run(ulong chunks, Func<Action<ulong>> worker, CancellationToken cancel)
    {
        Crew crew = new(chunks, worker, cancel);
        ulong slabs = (chunks + SlabChunks - 1) / SlabChunks;
        List<Thread> others = [];
        try
        {
            while ((ulong)others.Count + 1 < Math.Min(slabs, (ulong)Math.Min(Environment.ProcessorCount, MostThreads)))
            {
                Thread thread = new(crew.Work, maxStackSize: 256 * 1024) { Name = "memory-image", IsBackground = true };
                thread.Start();
                others.Add(thread);
            }
        }
        catch (OutOfMemoryException)
        {
            // No more threads are to be had (pids of the control group): those that there are do it.
        }

        crew.Work();
        others.ForEach(thread => thread.Join());
        crew.ThrowIfFailed();
    }

    private sealed class Crew(ulong chunks, Func<Action<ulong>> worker, CancellationToken cancel)
    {
        private ExceptionDispatchInfo? _failed;
        private ulong _next;

        internal void Work()
        {
            try
            {
                Action<ulong> work = worker();
                for (ulong first; (first = Interlocked.Add(ref _next, SlabChunks) - SlabChunks) < chunks;)
                {
                    for (ulong chunk = first; chunk < Math.Min(first + SlabChunks, chunks); chunk++)
                    {
                        if (Volatile.Read(ref _failed) is not null)
                        {
                            return;
                        }

                        cancel.ThrowIfCancellationRequested();
                        work(chunk);
                    }
                }
            }
#pragma warning disable CA1031 // Whatever it was, the caller gets it.
            catch (Exception cause)
#pragma warning restore CA1031
            {
                Interlocked.CompareExchange(ref _failed, ExceptionDispatchInfo.Capture(cause), null);
            }
        }

        internal void ThrowIfFailed() => _failed?.Throw();
    }
}
