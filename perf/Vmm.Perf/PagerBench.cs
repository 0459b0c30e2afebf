using System.Diagnostics;
using System.Globalization;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.Memory.Paging;

namespace Vmm.Perf;

/// <summary>
/// (p) What the pager costs where nothing is out, and what a fault costs, beside a bare userfaultfd program in C
/// (native-shim/bench/uffd_loop.c) that answers the same faults and does nothing else.
/// </summary>
internal sealed class PagerBench(Bench bench, string root)
{
    private const ulong MiB = 1 << 20, Page = 4096;
    private const string Bare = "bare userfaultfd in C", None = "no pager";

    private int Rounds => bench.Short ? 2 : 9;

    internal void Run(Report report)
    {
        Leases(report, "(p) lease of 4 KiB, nothing out", 4096);
        Leases(report, "(p) lease of 64 KiB, nothing out", 64 << 10);
        Faults(report, "(p) first touch of a page", "zero", atMost: 1.3, guest => Touch(guest, 0, 32 * MiB, threads: 1));
        foreach (int threads in (int[])[1, 2, 4])
        {
            string name = Row.Invariant($"(p) fault of a page that is in memory, {threads} thread{(threads == 1 ? "" : "s")}");
            Faults(report, name, "continue", threads == 1 ? 1.3 : null, guest =>
            {
                Touch(guest, 0, 32 * MiB, 1);
                Userfault.Unmap(guest.Memory.RegionSpan[0].HostAddress, 32 * MiB);
                return Touch(guest, 0, 32 * MiB, threads);
            });
        }

        Faults(report, "(p) fault of a page that is in the swap file", "copy", atMost: null, guest =>
        {
            Touch(guest, 0, 256 * MiB, 1);
            return Touch(guest, 0, 32 * MiB, 1);
        });
        Evictions(report, "(p) pages out");
    }

    private void Leases(Report report, string name, uint bytes)
    {
        if (!bench.Wants(name))
        {
            return;
        }

        List<double> paged = [], plain = [];
        for (int round = 0; round < Rounds; round++)
        {
            using Guest with = new(paged: true), without = new(paged: false);
            Touch(with, 0, 32 * MiB, 1);
            Touch(without, 0, 32 * MiB, 1);
            paged.Add(Lease(with, bytes));
            plain.Add(Lease(without, bytes));
        }

        report.Add(new Row(name, "ns", None, paged, plain));
        double pages = bytes / (double)Page;
        report.Note(Row.Invariant(
            $"{name}: the pager costs {(Statistics.Median(paged) - Statistics.Median(plain)) / pages:0.0} ns a page (goal: below 15)"));
    }

    private static double Lease(Guest guest, uint bytes)
    {
        const int Count = 2_000_000, Batch = 20_000;
        PageLease lease = new(1);
        Waiter waiter = new();
        List<double> batches = []; // what else runs on the machine spoils some of them
        long begin = 0;
        for (int i = -100_000; i < Count; i++)
        {
            if (i >= 0 && i % Batch == 0)
            {
                long now = Stopwatch.GetTimestamp();
                if (i > 0)
                {
                    batches.Add(Stopwatch.GetElapsedTime(begin, now).TotalNanoseconds / Batch);
                }

                begin = Stopwatch.GetTimestamp();
            }

            GuestRange range = new(new GuestAddress((ulong)(i & 127) * 65536), bytes);
            if (guest.Memory.Dma.TryAcquire(range, DmaAccess.Read, lease, waiter) != Acquired.Ready)
            {
                throw new InvalidOperationException("a page is not there");
            }

            lease.Release();
        }

        return Statistics.Median(batches);
    }

    private void Faults(Report report, string name, string how, double? atMost, Func<Guest, double> run)
    {
        if (!bench.Wants(name))
        {
            return;
        }

        List<double> ours = [], bare = [];
        for (int round = 0; round < Rounds; round++)
        {
            using (Guest guest = new(paged: true))
            {
                ours.Add(run(guest));
            }

            bare.Add(RunBare(how));
        }

        report.Add(new Row(name, "ns", Bare, ours, bare, AtMost: atMost));
    }

    private void Evictions(Report report, string name)
    {
        if (!bench.Wants(name))
        {
            return;
        }

        List<double> rates = [];
        for (int round = 0; round < Rounds; round++)
        {
            using Guest guest = new(paged: true, limit: 256 * MiB);
            Touch(guest, 0, 224 * MiB, 1);
            ulong before = guest.Pager!.Statistics.ResidentBytes;
            long begin = Stopwatch.GetTimestamp();
            guest.Pager.SetResidentLimit(new ByteSize(64 * MiB));
            SpinWait.SpinUntil(() => guest.Pager.Statistics.ResidentBytes <= 64 * MiB, 60_000);
            rates.Add((before - guest.Pager.Statistics.ResidentBytes) / Page / Stopwatch.GetElapsedTime(begin).TotalSeconds);
        }

        report.Add(new Row(name, "pages/s", "", rates, []));
    }

    // Nanoseconds for a page. Threads have a part each.
    private static double Touch(Guest guest, ulong from, ulong length, int threads)
    {
        Thread[] all = [.. Enumerable.Range(0, threads).Select(number => new Thread(() =>
        {
            ulong part = length / (ulong)threads;
            for (ulong at = from + (part * (ulong)number), end = at + part; at < end; at += Page)
            {
                guest.Memory.TryWrite(new GuestAddress(at), (at * 0x9E3779B97F4A7C15) | 1);
            }
        }))];
        long begin = Stopwatch.GetTimestamp();
        Array.ForEach(all, thread => thread.Start());
        Array.ForEach(all, thread => thread.Join());
        return Stopwatch.GetElapsedTime(begin).TotalNanoseconds / (length / Page);
    }

    private double RunBare(string how)
    {
        using Process bare = Process.Start(new ProcessStartInfo(Path.Combine(root, "native-shim/build/uffd_loop"), [how, "8192"])
        {
            RedirectStandardOutput = true,
            UseShellExecute = false,
        })!;
        string said = bare.StandardOutput.ReadToEnd();
        bare.WaitForExit();
        return bare.ExitCode == 0
            ? double.Parse(said, CultureInfo.InvariantCulture) : throw new InvalidOperationException($"uffd_loop {how} failed");
    }

    private sealed class Waiter : IPageWaiter
    {
        public void PagesReady(PageLease lease)
        {
        }
    }

    /// <summary>Guest memory of 256 MiB without a machine.</summary>
    private sealed class Guest : IDisposable
    {
        private readonly VnodeMemory _memory;

        internal Guest(bool paged, ulong limit = 64 * MiB)
        {
            ByteSize size = new(256 * MiB);
            _memory = VnodeMemory.Create(new VnodePlacement(0, size, new ByteSize(Page), null, []), HostTopology.Unknown);
            Memory = new GuestMemory([_memory.Region(new GuestAddress(0), size, 0)]);
            if (paged)
            {
                using FileDescriptorHandle device = UserfaultDevice.Open();
                ulong swap = 2 * size.Bytes;
                SwapStore store = new(SwapFile.Create(BlockBench.Memory, swap, out _), swap);
                Pager = new MemoryPager(new PagerParts(device, store, [_memory], new ByteSize(limit), thread => thread.Start(), Fail));
                Pager.Serve(Memory.Ram);
            }
        }

        internal GuestMemory Memory { get; }

        internal MemoryPager? Pager { get; }

        public void Dispose()
        {
            Pager?.Dispose();
            _memory.Dispose();
        }

        private static void Fail(string reason) => Console.Error.WriteLine($"perf: {reason}");
    }
}
