using System.Buffers.Binary;
using System.Diagnostics;
using Vmm.Interop;
using Vmm.Memory.Paging;

namespace Vmm.Perf;

/// <summary>
/// (s) Pages out to a swap store and in again, clusters of 16, and beside it the plain system calls, a page each, on a file of the same
/// kind.
/// </summary>
internal sealed class SwapStoreBench(Bench bench, string folder)
{
    private const int Page = ISwapStore.PageBytes, Cluster = ISwapStore.MostPages;
    private const string Plain = "pwrite/pread of 4 KiB";

    private int Clusters => bench.Short ? 256 : 1024; // 64 MiB

    private int Rounds => bench.Short ? 1 : 5;

    internal void Run(Report report, string where)
    {
        foreach (bool noise in (bool[])[false, true])
        {
            foreach (int threads in (int[])[1, 2])
            {
                Compare(report, noise, threads, where);
            }
        }
    }

    private void Compare(Report report, bool noise, int threads, string where)
    {
        string what = Row.Invariant($"{(noise ? "random" : "compressible")} data, {threads} thread{(threads == 1 ? "" : "s")}, {where}");
        string[] rows = [$"(s) pages out, {what}", $"(s) pages in, {what}", $"(s) one page in, {what}"];
        if (!rows.Any(bench.Wants))
        {
            return;
        }

        byte[] data = Data(noise);
        List<SwapRate>[] ours = [[], [], []], plain = [[], [], []];
        double ratio = 0;
        for (int round = 0; round < Rounds; round++)
        {
            for (int turn = 0; turn < 2; turn++)
            {
                if ((round + turn) % 2 == 0)
                {
                    Add(ours, Store(data, threads, out ratio));
                }
                else
                {
                    Add(plain, Bare(data, threads));
                }
            }
        }

        for (int i = 0; i < rows.Length; i++)
        {
            report.Add(new Row(
                rows[i], "pages/s", Plain, [.. ours[i].Select(rate => rate.PerSecond)], [.. plain[i].Select(rate => rate.PerSecond)]));
            report.Add(new Row(
                $"{rows[i]}: processor time", "us/page", Plain, [.. ours[i].Select(rate => rate.Processor)],
                [.. plain[i].Select(rate => rate.Processor)]));
        }

        report.Note(Row.Invariant($"(s) {what}: a page takes {ratio * Page:0} bytes of the file, 1/{1 / ratio:0.00} of it"));
    }

    private static void Add(List<SwapRate>[] all, SwapRate[] rates)
    {
        for (int i = 0; i < all.Length; i++)
        {
            all[i].Add(rates[i]);
        }
    }

    private SwapRate[] Store(byte[] data, int threads, out double ratio)
    {
        ulong limit = (ulong)Clusters * SwapStore.LeastBytes;
        using SwapStore store = new(SwapFile.Create(folder, limit, out _), limit);
        SwapSlot[] slots = new SwapSlot[Clusters * Cluster];
        SwapRate outRate = Rate(threads, Cluster, cluster => store.Write(At(data, cluster), slots.AsSpan(cluster * Cluster, Cluster)));
        ratio = (double)store.Statistics.FileBytes / ((double)Clusters * Cluster * Page);
        byte[][] pages = [.. Enumerable.Range(0, threads).Select(_ => new byte[Cluster * Page])];
        SwapSlot[][] found = [.. Enumerable.Range(0, threads).Select(_ => new SwapSlot[Cluster])];
        SwapRate inRate = Rate(threads, Cluster, cluster =>
        {
            int thread = cluster % threads;
            if (store.Read(slots[Mixed(cluster) * Cluster], pages[thread], found[thread]) != Cluster
                || !At(data, Mixed(cluster)).SequenceEqual(pages[thread]))
            {
                throw new InvalidOperationException("the swap store gave other pages than were written");
            }
        });
        SwapRate oneRate = Rate(threads, 1, cluster =>
        {
            int thread = cluster % threads;
            _ = store.Read(slots[(Mixed(cluster) * Cluster) + 7], pages[thread].AsSpan(0, Page), found[thread]);
        });
        return [outRate, inRate, oneRate];
    }

    private SwapRate[] Bare(byte[] data, int threads)
    {
        using FileDescriptorHandle file = SwapFile.Create(folder, (ulong)data.Length, out _);
        NativeArray<byte>[] pages = [.. Enumerable.Range(0, threads).Select(_ => new NativeArray<byte>(Page, Page))];
        NativeArray<IoVector>[] vectors = [.. pages.Select(_ => new NativeArray<IoVector>(1))];
        SwapRate outRate = Rate(threads, Cluster, cluster =>
        {
            int thread = cluster % threads;
            for (int i = 0; i < Cluster; i++)
            {
                At(data, cluster).Slice(i * Page, Page).CopyTo(pages[thread].Span);
                vectors[thread].Span[0] = new IoVector(pages[thread].AddressOf(0), Page);
                ulong offset = (ulong)((cluster * Cluster) + i) * Page;
                KernelException.ThrowIfError(BlockFile.WriteAt(file, vectors[thread].AddressOf(0), 1, offset), "pwrite");
            }
        });
        SwapRate inRate = Rate(threads, Cluster, cluster =>
        {
            for (int i = 0; i < Cluster; i++)
            {
                BlockFile.ReadAt(file, pages[cluster % threads].Span, (ulong)((Mixed(cluster) * Cluster) + i) * Page);
            }
        });
        SwapRate oneRate = Rate(threads, 1, cluster =>
            BlockFile.ReadAt(file, pages[cluster % threads].Span, (ulong)((Mixed(cluster) * Cluster) + 7) * Page));
        Array.ForEach(pages, page => page.Dispose());
        Array.ForEach(vectors, vector => vector.Dispose());
        return [outRate, inRate, oneRate];
    }

    // Each call handles so many pages. A thread has every so-manyth cluster.
    private SwapRate Rate(int threads, int pages, Action<int> each)
    {
        Exception? failure = null;
        Thread[] all = [.. Enumerable.Range(0, threads).Select(thread => new Thread(() =>
        {
            try
            {
                for (int cluster = thread; cluster < Clusters; cluster += threads)
                {
                    each(cluster);
                }
            }
            catch (Exception e) when (e is IOException or KernelException or InvalidOperationException)
            {
                failure = e;
            }
        }))];
        using Process self = Process.GetCurrentProcess();
        TimeSpan before = self.TotalProcessorTime;
        long begin = Stopwatch.GetTimestamp();
        Array.ForEach(all, thread => thread.Start());
        Array.ForEach(all, thread => thread.Join());
        TimeSpan elapsed = Stopwatch.GetElapsedTime(begin);
        self.Refresh();
        double count = Clusters * pages;
        return failure is null
            ? new SwapRate(count / elapsed.TotalSeconds, (self.TotalProcessorTime - before).TotalMicroseconds / count)
            : throw new InvalidOperationException(failure.Message, failure);
    }

    private static ReadOnlySpan<byte> At(byte[] data, int cluster) => data.AsSpan(cluster * Cluster * Page, Cluster * Page);

    // Another order than that of the write; Clusters is a power of two.
    private int Mixed(int cluster) => (cluster * 1663) & (Clusters - 1);

    // Records as programs have them: a pointer, a small number, flags; or noise.
    private byte[] Data(bool noise)
    {
        Random random = new(7);
        byte[] data = new byte[Clusters * Cluster * Page];
        if (noise)
        {
            random.NextBytes(data);
            return data;
        }

        for (int at = 0; at < data.Length; at += 32)
        {
            BinaryPrimitives.WriteInt64LittleEndian(data.AsSpan(at), 0x7f3a_0000_0000 + (random.Next(1 << 20) * 16L));
            BinaryPrimitives.WriteInt32LittleEndian(data.AsSpan(at + 8), random.Next(1000));
            BinaryPrimitives.WriteInt32LittleEndian(data.AsSpan(at + 16), at / 32);
            data[at + 24] = (byte)random.Next(4);
        }

        return data;
    }
}

/// <summary>What a run came to.</summary>
/// <param name="PerSecond">Pages a second.</param>
/// <param name="Processor">Processor time of a page, all threads, in microseconds.</param>
internal readonly record struct SwapRate(double PerSecond, double Processor);
