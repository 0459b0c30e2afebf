using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Tests;

/// <summary>VMs that their worker pauses for a disk that waits for the host. The workers are fakes.</summary>
public sealed class DiskStallTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task A_paused_vm_says_which_disk_it_waits_for_and_goes_on_by_itself()
    {
        await using DaemonFixture daemon = await RunningAsync();
        FakeWorker worker = daemon.Workers.Alive.Values.Single();
        worker.Wait(new DiskStallBody("disk0", DiskFault.NoSpace, Waits: true));
        VmInfo vm = await daemon.Client.ShowAsync("web1", s_none);
        Assert.Equal(VmState.Paused, vm.State);
        Assert.Contains("disk0 (", vm.WaitsFor, StringComparison.Ordinal);
        Assert.Contains("root.img): no space left", vm.WaitsFor, StringComparison.Ordinal);
        Assert.Equal(vm.WaitsFor, Assert.Single((await daemon.Client.ListAsync(s_none)).Vms).WaitsFor);
        worker.Wait(new DiskStallBody("disk0", DiskFault.NoSpace, Waits: false));
        vm = await daemon.Client.ShowAsync("web1", s_none);
        Assert.Equal((VmState.Running, null), (vm.State, vm.WaitsFor));
        IReadOnlyList<DaemonEvent> events = (await daemon.Client.EventsOfAsync("web1", s_none)).Events;
        Assert.Contains(events, e => e.Kind is "disk-waits" && e.Message!.Contains("the VM is paused", StringComparison.Ordinal));
        Assert.Contains(events, e => e.Kind is "disk-goes-on");
    }

    [Fact]
    public async Task A_resume_that_meets_the_fault_again_leaves_the_vm_paused()
    {
        await using DaemonFixture daemon = await RunningAsync();
        FakeWorker worker = daemon.Workers.Alive.Values.Single();
        worker.Wait(new DiskStallBody("disk0", DiskFault.IoError, Waits: true));
        worker.Resumed = () => worker.Wait(new DiskStallBody("disk0", DiskFault.IoError, Waits: true)); // before the answer
        await daemon.Client.DoAsync("web1", "resume", s_none);
        Assert.Equal(VmState.Paused, (await daemon.Client.ShowAsync("web1", s_none)).State);
        worker.Resumed = null;
        await daemon.Client.DoAsync("web1", "resume", s_none);
        Assert.Equal(VmState.Running, (await daemon.Client.ShowAsync("web1", s_none)).State);
    }

    [Fact]
    public async Task A_disk_that_the_vm_has_not_changes_nothing()
    {
        await using DaemonFixture daemon = await RunningAsync();
        daemon.Workers.Alive.Values.Single().Wait(new DiskStallBody("disk7", DiskFault.NoSpace, Waits: true));
        VmInfo vm = await daemon.Client.ShowAsync("web1", s_none);
        Assert.Equal((VmState.Running, null), (vm.State, vm.WaitsFor));
    }

    private static async Task<DaemonFixture> RunningAsync()
    {
        DaemonFixture daemon = await DaemonFixture.StartAsync();
        await File.WriteAllBytesAsync(Path.Combine(daemon.Folder, "root.img"), new byte[4096]);
        await daemon.CreateAsync("web1", "disks:\n  - path: root.img\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        return daemon;
    }
}
