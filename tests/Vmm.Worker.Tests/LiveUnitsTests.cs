using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;
using Vmm.Storage.Tests.Nbd;
using Vmm.Testing;
using static Vmm.Worker.Tests.LiveDaemon;

namespace Vmm.Worker.Tests;

/// <summary><c>vm inspect</c>: the units of a machine in a confined worker, also while a save hangs at one of them.</summary>
[Trait("Tier", "kvm")]
public sealed class LiveUnitsTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-units-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmFact]
    public async Task Every_unit_of_a_vm_that_runs_and_is_paused_is_told()
    {
        await using LiveDaemon daemon = await StartAsync();
        LiveVm vm = await daemon.RunAsync("spin", "every=20000000 ticks=0", "");
        UnitList runs = await daemon.Client.UnitsAsync(vm.Name, Soon);
        Assert.Null(runs.Operation);
        Assert.All(runs.Units, unit => Assert.Equal(("running", null), (unit.Phase, unit.Milliseconds)));
        Assert.Superset(
            new HashSet<string> { "clock", "vcpu0", "vcpu1", "irqchip", "pit", "serial", "pci", "memory" },
            runs.Units.Select(unit => unit.Name).ToHashSet());
        await daemon.Client.DoAsync(vm.Name, "pause", Soon);
        Assert.All((await daemon.Client.UnitsAsync(vm.Name, Soon)).Units, unit => Assert.Equal("quiescent", unit.Phase));
        await daemon.Client.DoAsync(vm.Name, "stop", Soon);
        VmmApiException off = await Assert.ThrowsAsync<VmmApiException>(() => daemon.Client.UnitsAsync(vm.Name, Soon));
        Assert.Equal("wrong-state", off.Problem.Code);
    }

    [NbdKvmFact]
    public async Task A_save_that_hangs_shows_the_disk_that_it_waits_for()
    {
        string socket = Path.Combine(_folder, "nbd.sock"), file = Path.Combine(_folder, "disk.raw");
        using (FileStream disk = File.Create(file))
        {
            disk.SetLength(24 << 20);
        }

        await using LiveDaemon daemon = await StartAsync(options => options with { NbdServers = [socket] });
        using NbdServer server = NbdServer.Qemu(file, socket: socket);
        LiveVm vm = await daemon.RunAsync("blk", "requests=0", $"disks: [{{nbd: {{socket: {socket}, unflushed: trust}}}}]\n");
        await vm.WritesAsync();
        server.Hang(true);
        JobInfo save = await daemon.Client.SaveAsync(vm.Name, daemon.In("saved"), Soon);
        UnitList now = new([]);
        await vm.UntilAsync(
            async () =>
            {
                now = await daemon.Client.UnitsAsync(vm.Name, Soon);
                return now.Operation == "quiesce" && now.Units.Any(unit => unit.Name == "device/disk0" && unit.Phase == "quiescing");
            },
            "a disk that comes to rest");
        UnitInfo waits = now.Units.Single(unit => unit.Name == "device/disk0");
        Assert.Matches("[1-9][0-9]* requests in flight", waits.Text);
        Assert.NotNull(waits.Milliseconds);
        server.Hang(false);
        await daemon.EndAsync(save);
        Assert.Equal(VmState.Saved, (await vm.ShowAsync()).State);
    }
}
