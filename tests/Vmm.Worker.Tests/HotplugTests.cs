using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Worker.Tests.WorkerFixture;

namespace Vmm.Worker.Tests;

/// <summary>Disks that come to a confined worker as descriptors and go again, with the micro-guest hotplug.elf.</summary>
[Trait("Tier", "kvm")]
public sealed class HotplugTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-whp-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmFact]
    public Task Disks_come_and_go_in_a_confined_worker() => ComeAndGoAsync(DiskCache.Buffered);

    [KvmFact]
    public Task Disks_with_a_second_descriptor_do_too() => ComeAndGoAsync(DiskCache.Direct);

    /// <summary>A queue's thread sets the line by a call that others of its kind never make.</summary>
    [KvmFact]
    public async Task A_disk_without_msix_interrupts_by_its_pin_in_a_confined_worker()
    {
        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 1_900_000_500u : null);
        IWorker worker = await fixture.LaunchAsync(SpecOf("intx", "pin=20") with { Disks = [Disk("pin", DiskCache.Buffered)] });
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(console, "RESULT intx rounds=6");
    }

    private async Task ComeAndGoAsync(DiskCache cache)
    {
        await using WorkerFixture fixture = new(pool: 1, firstUser: Environment.IsPrivilegedProcess ? 1_900_000_500u : null);
        IWorker worker = await fixture.LaunchAsync(SpecOf("hotplug"));
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(console, "READY slots=0x0");
        for (int round = 0; round < 3; round++)
        {
            DeviceInfo added = await worker.AddDiskAsync(Disk("a", cache) with { Vnode = 0 }, Soon);
            Assert.Equal(($"disk{round}", "disk", 0), (added.Name, added.Kind, added.Vnode));
            await ReadUntilAsync(console, $"ADDED slot={added.Slot} mib=8");
            Assert.Equal(added.Name, Assert.Single((await worker.DevicesAsync(Soon)).Devices).Name);
            Assert.True((await worker.GetStatsAsync(Soon)).Disks.Single() is { WriteRequests: >= 128, Errors: 0 });
            Assert.Equal(DeviceRemoval.Removed, await worker.RemoveDeviceAsync(added.Name, TimeSpan.FromSeconds(30), force: false, Soon));
            Assert.Empty((await worker.DevicesAsync(Soon)).Devices);
        }

        Assert.Equal(
            "disk-open-failed",
            (await Assert.ThrowsAsync<WorkerException>(() => worker.AddDiskAsync(new DiskSpec { Path = _folder + "/none" }, Soon))).Code);
        Assert.Equal(
            "not-hotpluggable",
            (await Assert.ThrowsAsync<WorkerException>(() => worker.AddDiskAsync(Disk("a", cache) with { Vnode = 1 }, Soon))).Code);
        Assert.Equal(
            "no-such-device",
            (await Assert.ThrowsAsync<WorkerException>(() => worker.RemoveDeviceAsync("disk9", TimeSpan.Zero, force: false, Soon))).Code);
        await QuitAsync(worker, console);
    }

    /// <summary>A confined worker opens nothing and may not write behind the end of its largest disk: both change for it.</summary>
    [KvmFact]
    public async Task A_disk_of_a_confined_worker_grows_and_its_guest_writes_to_the_new_end()
    {
        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 1_900_000_500u : null);
        DiskSpec disk = Disk("grows", DiskCache.Direct);
        IWorker worker = await fixture.LaunchAsync(SpecOf("blk", "mode=grow") with { Disks = [disk] });
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(console, "READY sectors=16384");
        using (DiskGrowth growth = DiskGrowth.Plan(disk, 32 << 20, new StorageFolders([_folder], [])))
        {
            Assert.Equal(32UL << 20, await worker.GrowDiskAsync("disk0", growth, Soon));
        }

        await ReadUntilAsync(console, "RESULT blk grow=ok sectors=65536");
        Assert.Equal(new WorkerExit(ExitReason.DebugExit, 0, null), await worker.Ended.WaitAsync(Soon));
    }

    [KvmFact]
    public async Task Other_requests_go_on_while_a_guest_clings_to_a_disk_and_its_late_eject_reaches_the_next_daemon()
    {
        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 1_900_000_500u : null);
        IWorker worker = await fixture.LaunchAsync(SpecOf("hotplug", "keep=1"));
        Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        DeviceInfo added = await worker.AddDiskAsync(Disk("a", DiskCache.Buffered), Soon);
        await ReadUntilAsync(console, "ADDED");
        Task<DeviceRemoval> removal = worker.RemoveDeviceAsync(added.Name, TimeSpan.FromSeconds(2), force: false, Soon);
        await ReadUntilAsync(console, "KEPT");
        Assert.Equal("device-busy", (await Assert.ThrowsAsync<WorkerException>(
            () => worker.RemoveDeviceAsync(added.Name, TimeSpan.Zero, force: false, Soon))).Code);
        Assert.False(removal.IsCompleted);
        Assert.Equal(DeviceRemoval.Refused, await removal);

        // One that is under way when the daemon goes is answered to nobody: its number may be another request's by then.
        Task<DeviceRemoval> orphan = worker.RemoveDeviceAsync(added.Name, TimeSpan.FromSeconds(1), force: false, Soon);
        _ = await worker.DevicesAsync(Soon);
        await console.DisposeAsync();
        worker = Assert.Single(await fixture.RestartDaemonAsync());
        Assert.Equal("worker-died", (await Assert.ThrowsAsync<WorkerException>(() => orphan)).Code);
        TaskCompletionSource<RemovalBody> gone = new(TaskCreationOptions.RunContinuationsAsynchronously);
        worker.OnDeviceRemoved(gone.SetResult);
        await using Stream again = await worker.OpenConsoleAsync(Soon);
        for (int i = 0; i < 15; i++)
        {
            Assert.True(Assert.Single((await worker.DevicesAsync(Soon)).Devices).Removing); // each gets its own answer
            await Task.Delay(100);
        }

        await again.WriteAsync("e"u8.ToArray(), Soon);
        Assert.Equal(new RemovalBody(added.Name, DeviceRemoval.Removed), await gone.Task.WaitAsync(Soon));
        await QuitAsync(worker, again);
    }

    private static async Task QuitAsync(IWorker worker, Stream console)
    {
        await console.WriteAsync("q"u8.ToArray(), Soon);
        Assert.Equal(new WorkerExit(ExitReason.DebugExit, 0, null), await worker.Ended.WaitAsync(Soon));
    }

    private DiskSpec Disk(string name, DiskCache cache)
    {
        string path = Path.Combine(_folder, name);
        using (FileStream file = File.Open(path, FileMode.OpenOrCreate))
        {
            file.SetLength(8 << 20);
        }

        return new DiskSpec { Path = path, Cache = cache };
    }
}
