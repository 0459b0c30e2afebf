using Vmm.Machine.Numa;
using Vmm.Memory;

namespace Vmm.Machine.Tests.Run;

public sealed class ThreadHomesTests
{
    private static readonly IReadOnlyList<int> s_cpus = [.. HostTopology.Read().Nodes.SelectMany(n => n.Cpus).Order()];

    [Fact]
    public void Io_threads_are_dealt_out_over_the_vnodes_and_tied_ones_stay_with_theirs()
    {
        int first = s_cpus[0], last = s_cpus[^1];
        ThreadHomes homes = new(null, [[first], [last]]);
        homes.Tie("mem0", 0);
        homes.Tie("disk7", 1);
        using ManualResetEventSlim end = new();
        List<Thread> threads =
        [
            .. new[] { "disk0-io0", "mem0-io", "disk7-io0", "disk7-io1", "disk7-io12", "disk1-io0", "net0-io0", "rng-io" }
                .Select(name => Io(homes, name, end))
        ];
        threads.Add(Begin("vcpu1", end, () => homes.VcpuReady(1)));
        Assert.Equal(
            [("disk0-io0", 0), ("disk1-io0", 1), ("disk7-io0", 1), ("disk7-io1", 1), ("disk7-io12", 1), ("mem0-io", 0), ("net0-io0", 0),
                ("rng-io", 1), ("vcpu1", 1)],
            homes.Threads.Select(t => (t.Name, t.Vnode)).Order());
        Assert.All(homes.Threads, t => Assert.Equal($"{(t.Vnode == 0 ? first : last)}", Allowed(t.Id)));

        // The vnode moves; threads that come later go where it is now, and those that are over are forgotten.
        homes.Move(1, [first]);
        Assert.All(homes.Threads, t => Assert.Equal($"{first}", Allowed(t.Id)));
        end.Set();
        threads.ForEach(t => t.Join());
        Assert.Empty(homes.Threads);
        homes.Move(0, [last]);
        end.Reset();
        Thread late = Begin("vcpu1", end, () => homes.VcpuReady(1));
        Assert.Equal($"{first}", Allowed(Assert.Single(homes.Threads).Id));
        end.Set();
        late.Join();
    }

    private static Thread Io(ThreadHomes homes, string name, ManualResetEventSlim end) => Begin(name, end, homes.Ready, homes.Start);

    private static Thread Begin(string name, ManualResetEventSlim end, Action ready, Action<Thread>? start = null)
    {
        using ManualResetEventSlim placed = new();
        Thread thread = new(() =>
        {
            ready();
            placed.Set();
            end.Wait();
        })
        { Name = name };
        (start ?? (t => t.Start()))(thread);
        placed.Wait();
        return thread;
    }

    private static string Allowed(int thread) =>
        File.ReadLines(
            $"/proc/self/task/{thread}/status").First(l => l.StartsWith("Cpus_allowed_list:", StringComparison.Ordinal)).Split('\t')[1];
}
