using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Pressure;
using Vmm.LifeCycle;
using Vmm.Testing;
using static Vmm.Worker.Tests.LiveDaemon;

namespace Vmm.Worker.Tests;

/// <summary>
/// The pressure loop all the way: a host that says it is short (the files are the test's), vmmd, a confined worker with its pager, and a
/// guest that verifies its memory and its disk meanwhile.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class LivePressureTests : IDisposable
{
    private const ulong MiB = 1 << 20;
    private readonly string _host = Directory.CreateTempSubdirectory("vmm-host-").FullName;

    public void Dispose() => Directory.Delete(_host, recursive: true);

    [KvmFact(NeedsPager = true)]
    public async Task A_vm_is_squeezed_while_its_host_is_short_outlives_its_vmmd_and_gets_its_memory_back()
    {
        Available(8192);
        await using LiveDaemon daemon = await StartAsync(options => options with
        {
            HostReader = new HostMemoryReader(Path.Combine(_host, "sys"), Path.Combine(_host, "proc")),
            Pressure = new PressureOptions(Enabled: true, Reserve: 256 * MiB)
            {
                Interval = TimeSpan.FromMilliseconds(100),
                Rules = new PressureRules
                {
                    TakeRest = TimeSpan.FromMilliseconds(200),
                    GiveRest = TimeSpan.FromMilliseconds(200),
                    Calm = TimeSpan.FromMilliseconds(500),
                    Settle = TimeSpan.FromMilliseconds(500),
                },
            },
        });
        await using (FileStream disk = File.Create(daemon.In("disk.raw")))
        {
            disk.SetLength(64 << 20);
        }

        LiveVm vm = await daemon.RunAsync("paged", "mib=120 requests=0",
            "disks: [{path: disk.raw, queues: 1}]\n", memory: "{size: 200MiB, resident: 180MiB, minResident: 64MiB}");
        await vm.SaysAsync("READY paged");
        Assert.True((await PagingAsync()).ResidentBytes > 100 * MiB);
        Available(50);
        await vm.UntilAsync(
            async () => await PagingAsync() is { LimitBytes: 64 * MiB, ResidentBytes: <= 64 * MiB, PagesOut: > 5000 }, "64 MiB");
        PagingInfo squeezed = await PagingAsync();
        Assert.Equal((180 * MiB, 64 * MiB), (squeezed.ConfiguredBytes, squeezed.MinResidentBytes));
        Assert.Contains("the host has 50 MiB available, below 256 MiB", squeezed.Reason, StringComparison.Ordinal);
        Assert.NotNull(squeezed.Since);
        Assert.Contains("the host has 50 MiB available", (await vm.EventsAsync("memory-pressure"))[0], StringComparison.Ordinal);

        await daemon.RestartAsync();
        PagingInfo adopted = await PagingAsync();
        Assert.Equal((squeezed.LimitBytes, squeezed.Reason, squeezed.Since), (adopted.LimitBytes, adopted.Reason, adopted.Since));
        await vm.ConsoleAsync();
        Available(8192);
        await vm.UntilAsync(async () => await PagingAsync() is { LimitBytes: 180 * MiB, Reason: null }, "180 MiB");
        // It is told once the worker has answered.
        await vm.UntilAsync(async () => (await vm.EventsAsync("memory-pressure")) is [.., var last]
            && last.Contains("nothing is taken any more", StringComparison.Ordinal), "the event of the end");
        await vm.TellAsync("q");
        await vm.SaysAsync("RESULT paged");
        await vm.EndsWellAsync();

        async Task<PagingInfo> PagingAsync() => (await daemon.Client.MemoryAsync(vm.Name, Soon)).Paging!;
    }

    /// <summary>A host of 16 GiB that has so many MiB available.</summary>
    private void Available(ulong mebibytes)
    {
        string node = Directory.CreateDirectory(Path.Combine(_host, "sys/devices/system/node/node0")).FullName;
        string made = Path.Combine(_host, "new");
        File.WriteAllText(made, $"Node 0 MemTotal: {16384 * 1024} kB\nNode 0 MemFree: {mebibytes * 1024} kB\n");
        File.Move(made, Path.Combine(node, "meminfo"), overwrite: true);
        if (!File.Exists(Path.Combine(node, "../online")))
        {
            File.WriteAllText(Path.Combine(node, "../online"), "0\n");
        }
    }
}
