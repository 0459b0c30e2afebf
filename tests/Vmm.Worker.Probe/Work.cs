using System.Runtime.InteropServices;
using Vmm.Interop;

namespace Vmm.Worker.Probe;

internal static partial class Libc
{
    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    internal static partial long SystemCall(long number, nint a, nint b, nint c, nint d, nint e, nint f);
}

/// <summary>What must still work under a filter.</summary>
internal static class Work
{
    private static readonly EventFd Bell = new();
    private static readonly FileDescriptorHandle Memory =
        new((nint)Libc.SystemCall(319 /* memfd_create */, Marshal.StringToHGlobalAnsi("probe"), 0, 0, 0, 0, 0));
    [ThreadStatic]
    private static IoUring? t_ring;

    internal static void PrepareIo() => t_ring = IoUringPool.Rent();

    internal static void Dispose()
    {
        Bell.Dispose();
        Memory.Dispose();
    }

    internal static void Do(string kind)
    {
        Collect();
        Throw();
        StartThreads();
        Wait();
        Ring();
        if (string.Equals(kind, "io", StringComparison.Ordinal))
        {
            UseDisk();
        }

        if (string.Equals(kind, "control", StringComparison.Ordinal))
        {
            (UnixStream one, FileDescriptorHandle other) = UnixStream.CreatePair();
            one.Dispose();
            other.Dispose();
            IoUringPool.Return(IoUringPool.Rent());
        }
    }

    private static void Collect()
    {
        List<byte[]> kept = [];
        for (int i = 0; i < 2000; i++)
        {
            kept.Add(new byte[i % 50 == 0 ? 200_000 : 5000]);
            if (i % 400 == 0)
            {
                kept.Clear();
                GC.Collect(2, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            }
        }

        GC.KeepAlive(kept);
    }

    private static void Throw()
    {
        try
        {
            _ = new KernelException("probe", 5).Message.Length > 0
                ? throw new InvalidOperationException("expected", new FormatException("inner"))
                : 0;
        }
        catch (InvalidOperationException cause)
        {
            if (!cause.ToString().Contains(nameof(Throw), StringComparison.Ordinal))
            {
                throw;
            }
        }
    }

    private static void StartThreads()
    {
        Thread[] threads = new Thread[8];
        for (int i = 0; i < threads.Length; i++)
        {
            threads[i] = new Thread(() => Thread.Sleep(2)) { Name = "probe" + i };
            threads[i].Start();
        }

        foreach (Thread thread in threads)
        {
            thread.Join();
        }

        Task.WhenAll(Enumerable.Range(0, 16).Select(_ => Task.Run(() => Thread.Sleep(1)))).Wait();
        using ManualResetEventSlim fired = new();
        using Timer timer = new(_ => fired.Set(), null, 1, Timeout.Infinite);
        fired.Wait();
    }

    private static void Wait()
    {
        object gate = new();
        lock (gate)
        {
            Monitor.Wait(gate, 3);
        }

        Thread.Yield();
        _ = DateTime.UtcNow.Ticks + Environment.TickCount64;
        Span<byte> random = stackalloc byte[16];
        HostRandom.Fill(random);
    }

    private static void Ring()
    {
        Bell.Signal();
        if (!Bell.TryTake(out _))
        {
            throw new InvalidOperationException("the eventfd lost its count");
        }
    }

    private static void UseDisk()
    {
        using NativeArray<byte> bytes = new(4096);
        using NativeArray<IoVector> vectors = new(1);
        vectors.Span[0] = new IoVector(bytes.AddressOf(0), 4096);
        IoUring ring = t_ring!;
        ring.Write(Memory, vectors.AddressOf(0), 1, 0, tag: 7);
        ring.PollReadable(Bell.Handle, tag: 8);
        Bell.Signal();
        Span<IoCompletion> done = stackalloc IoCompletion[4];
        int count = 0;
        while (count < 2)
        {
            ring.SubmitAndWait();
            count += ring.Reap(done[count..]);
        }

        foreach (IoCompletion completion in done[..2])
        {
            if (completion.Result < 0)
            {
                throw new KernelException("io_uring", -completion.Result);
            }
        }

        ring.PollReadable(Bell.Handle, tag: 9);
        IoUringPool.Return(ring);
    }
}
