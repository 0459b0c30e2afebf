namespace Vmm.Hostile.Tests;

/// <summary>
/// What hostile drivers cost the host. Nothing else runs meanwhile: memory and descriptors are counted for the whole process.
/// </summary>
[CollectionDefinition(nameof(ResourceTests), DisableParallelization = true)]
public sealed class AloneInTheProcess;

[Collection(nameof(ResourceTests))]
public sealed class ResourceTests
{
    private static int Iterations(int otherwise) =>
        int.TryParse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS"), out int n) ? n : otherwise;

    public static TheoryData<string, TransportKind> All => RegistryTests.All;

    [Theory]
    [Trait("Kind", "fuzz")]
    [InlineData(1)]
    [InlineData(2026)]
    public void Chaos_on_all_devices_ends_with_devices_that_work_and_costs_nothing(int seed)
    {
        Run(seed, 500); // what is made once is made now
        int files = Descriptors();
        long before = GC.GetTotalMemory(forceFullCollection: true);
        Run(seed + 1, Iterations(8000));
        Assert.InRange(GC.GetTotalMemory(forceFullCollection: true) - before, long.MinValue, 16 << 20);
        Assert.InRange(Descriptors(), 0, files + 8); // the runtime's own come and go

        static void Run(int seed, int actions)
        {
            using Chaos chaos = new(seed);
            chaos.Run(actions);
        }
    }

    /// <summary>Requests on a served queue, thousands of them: the data path allocates nothing for one.</summary>
    [Theory]
    [MemberData(nameof(All))]
    public void A_request_costs_no_memory(string device, TransportKind transport)
    {
        const int Requests = 3000;
        using DeviceBench bench = DeviceRegistry.Create(device);
        using DeviceGuest guest = new(bench.Device, transport);
        guest.Start();
        int queue = Enumerable.Range(0, guest.Queues).Last(q => bench.Role(q) == QueueRole.Served);
        Piece[] chain = bench.Good(guest, queue);
        Serve(200);
        long before = GC.GetTotalAllocatedBytes(precise: true);
        Serve(Requests);
        long each = (GC.GetTotalAllocatedBytes(precise: true) - before) / Requests;
        // The driver here allocates something for every request; a device that copied one would show.
        Assert.InRange(each, 0, 2048);

        void Serve(int count)
        {
            for (int i = 0; i < count; i++)
            {
                guest.Request(queue, chain);
            }
        }
    }

    /// <summary>Broken, reset and started anew many times: no descriptor and no thread stays behind.</summary>
    [Theory]
    [MemberData(nameof(All))]
    public void A_broken_device_leaves_nothing_behind(string device, TransportKind transport)
    {
        using DeviceBench bench = DeviceRegistry.Create(device);
        using DeviceGuest guest = new(bench.Device, transport);
        Break(5);
        (int files, int threads) = (Descriptors(), Threads());
        Break(40);
        // One left behind each time would be forty; the runtime's own come and go.
        Assert.InRange(Descriptors(), 0, files + 20);
        Assert.InRange(Threads(), 0, threads + 20);

        void Break(int times)
        {
            int queue = Enumerable.Range(0, guest.Queues).First(each => bench.Role(each) == QueueRole.Served);
            for (int i = 0; i < times; i++)
            {
                guest.Start();
                guest.Put(queue, 0, DeviceGuest.Data, 8, DeviceGuest.Next, 0);
                guest.Offer(queue, 0);
                guest.Kick(queue);
                guest.WaitNeedsReset();
            }

            guest.Port.Status = 0;
        }
    }

    private static int Descriptors() => Directory.GetFileSystemEntries("/proc/self/fd").Length;

    private static int Threads() => Directory.GetDirectories("/proc/self/task").Length;
}
