using Vmm.LifeCycle;
using Vmm.Storage.Tests.Nbd;
using Vmm.Testing;
using static Vmm.Worker.Tests.LiveDaemon;

namespace Vmm.Worker.Tests;

/// <summary>Disks of a server that is killed and started again, in confined workers that get their sockets of vmmd.</summary>
[Trait("Tier", "kvm")]
public sealed class LiveNbdTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-nbd-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [NbdKvmFact]
    public async Task A_server_that_is_killed_and_started_again_costs_its_guest_nothing_but_time()
    {
        await using LiveDaemon daemon = await StartAsync(options => options with { NbdServers = [Socket] });
        using NbdServer server = Serve();
        // What qemu-nbd answered is in the host's page cache, which its end does not touch.
        LiveVm vm = await daemon.RunAsync("blk", "requests=0", $"disks: [{{nbd: {{socket: {Socket}, unflushed: trust}}}}]\n");
        for (int round = 0; round < 4; round++)
        {
            await vm.WritesAsync();
            server.Kill();
            await Task.Delay(round * 100);
            server.Start();
        }

        await vm.WritesAsync();
        await vm.VerifiesAsync();
        Assert.Empty(await vm.EventsAsync("disk-error"));
    }

    [NbdKvmFact]
    public async Task A_vm_waits_for_a_server_that_stays_away_and_goes_on_by_itself()
    {
        await using LiveDaemon daemon = await StartAsync(options => options with { NbdServers = [Socket] });
        using NbdServer server = Serve();
        LiveVm vm = await daemon.RunAsync(
            "blk", "requests=0", $"disks: [{{nbd: {{socket: {Socket}, reconnect: 1, unflushed: trust}}, onError: {{io: pause}}}}]\n");
        await vm.WritesAsync();
        server.Kill();
        await vm.IsAsync(VmState.Paused);
        await vm.UntilAsync(async () => (await vm.ShowAsync()).WaitsFor is not null, "which disk it waits for");
        Assert.Contains(Socket, (await vm.ShowAsync()).WaitsFor!, StringComparison.Ordinal);
        server.Start();
        await vm.IsAsync(VmState.Running);
        await vm.WritesAsync();
        await vm.VerifiesAsync();
    }

    private string Socket => Path.Combine(_folder, "nbd.sock");

    private NbdServer Serve()
    {
        string file = Path.Combine(_folder, "disk.raw");
        using (FileStream disk = File.Create(file))
        {
            disk.SetLength(24 << 20);
        }

        return NbdServer.Qemu(file, socket: Socket);
    }
}
