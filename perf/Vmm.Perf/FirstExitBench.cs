using System.Diagnostics;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Perf;

/// <summary>
/// (m) From the call to the first exit of a restored guest, and to its memory being whole, in one process without a daemon: lazily, and
/// beside it with all memory read first. The files are in memory.
/// </summary>
/// <param name="bench">Settings.</param>
/// <param name="folder">Where the files are.</param>
internal sealed class FirstExitBench(Bench bench, string folder)
{
    private const string Eager = "read first";

    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(2);

    private int Rounds => bench.Short ? 2 : 9;

    internal void Run(Report report)
    {
        Run(report, "a VM of 4 GiB, 340 MiB touched", memoryMiB: 4096, touchedMiB: 340);
        Run(report, "a VM of 1 GiB, 900 MiB touched", memoryMiB: 1024, touchedMiB: 900);
    }

    private void Run(Report report, string what, ulong memoryMiB, int touchedMiB)
    {
        string saved = Path.Combine(folder, Row.Invariant($"lazy-{memoryMiB}"));
        Save(saved, memoryMiB, touchedMiB);
        List<double> lazyExit = [], eagerExit = [], lazyWhole = [], eagerWhole = [];
        for (int round = 0; round < Rounds; round++)
        {
            foreach (bool lazily in round % 2 == 0 ? (bool[])[true, false] : [false, true])
            {
                (double exit, double whole) = Restore(saved, lazily);
                (lazily ? lazyExit : eagerExit).Add(exit);
                (lazily ? lazyWhole : eagerWhole).Add(whole);
            }
        }

        report.Add(new Row($"(m) restore to first exit: {what}", "ms", Eager, lazyExit, eagerExit, OursAtMost: 10));
        report.Add(new Row($"(m) restore to whole memory: {what}", "ms", Eager, lazyWhole, eagerWhole));
        Directory.Delete(saved, recursive: true);
    }

    private void Save(string saved, ulong memoryMiB, int touchedMiB)
    {
        VmSpec spec = new()
        {
            Memory = ByteSize.MiB(memoryMiB),
            Boot = new BootSpec { Kernel = bench.Guest("held"), Cmdline = Row.Invariant($"mib={touchedMiB}") },
        };
        using Listener console = new();
        using VirtualMachine machine = VirtualMachine.Create(spec, console);
        Thread run = new(() => machine.Run(CancellationToken.None));
        run.Start();
        console.WaitReady(s_limit);
        MachineSave.SaveAsync(machine, saved, s_limit, goOn: false).GetAwaiter().GetResult();
        machine.Dispose();
        run.Join();
    }

    private static (double Exit, double Whole) Restore(string saved, bool lazily)
    {
        using Listener console = new();
        long begin = Stopwatch.GetTimestamp();
        using VirtualMachine machine = SavedMachine.Read(saved).Restore(new PathResources(), console, lazily: lazily);
        Thread run = new(() => machine.Run(CancellationToken.None));
        run.Start();
        Until(() => machine.Counters.Exits > 0, begin);
        double exit = Stopwatch.GetElapsedTime(begin).TotalMilliseconds;
        Until(() => machine.MemoryRestore is null or { IsOver: true }, begin);
        double whole = Stopwatch.GetElapsedTime(begin).TotalMilliseconds;
        machine.Dispose();
        run.Join();
        return (exit, whole);
    }

    private static void Until(Func<bool> isSo, long begin)
    {
        while (!isSo())
        {
            if (Stopwatch.GetElapsedTime(begin) > s_limit)
            {
                throw new InvalidOperationException("a restored guest does not go on");
            }

            Thread.Sleep(0);
        }
    }

    /// <summary>Hears the guest's first words, and says nothing.</summary>
    private sealed class Listener : IConsoleEndpoint, IDisposable
    {
        private readonly ManualResetEventSlim _ready = new(), _stop = new();

        public void Write(ReadOnlySpan<byte> output)
        {
            if (output.Contains((byte)'\n'))
            {
                _ready.Set();
            }
        }

        public int Read(Span<byte> input)
        {
            _stop.Wait();
            return 0;
        }

        public void InterruptRead() => _stop.Set(); // it has nothing to say later either

        public void StopReading() => _stop.Set();

        public void Dispose()
        {
            _ready.Dispose();
            _stop.Dispose();
        }

        internal void WaitReady(TimeSpan limit)
        {
            if (!_ready.Wait(limit))
            {
                throw new InvalidOperationException("a guest that is to be saved says nothing");
            }
        }
    }
}
