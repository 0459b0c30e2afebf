using Vmm.Contracts.Rest;
using Vmm.Testing;
using Vmm.Testing.Virtio;
using static Vmm.Worker.Tests.LiveDaemon;

namespace Vmm.Worker.Tests;

/// <summary>Disks that another program serves, in confined workers that get their sockets of vmmd.</summary>
[Trait("Tier", "kvm")]
public sealed class LiveVhostUserTests
{
    [KvmFact]
    public async Task A_back_end_that_dies_and_comes_again_costs_its_guest_nothing_but_time()
    {
        await using LiveDaemon daemon = await StartAsync();
        string socket = daemon.In("back-end");
        BackEndDisk disk = new(32 << 20);
        using BackEndListener ends = new(socket, (stream, _) => new BlkBackEnd(stream, disk));
        LiveVm vm = await daemon.RunAsync("blk", "requests=0", $"devices: [{{kind: vhost-user-blk, socket: {socket}}}]\n");
        for (int round = 1; round <= 3; round++)
        {
            await GoesOnAsync(vm, disk);
            ends.Last.Dispose();
            int known = round;
            await vm.UntilAsync(() => Task.FromResult(ends.Count > known), "another back end");
        }

        await GoesOnAsync(vm, disk);
        await vm.VerifiesAsync();
        Assert.Null(ends.Failure);
    }

    [KvmFact]
    public async Task The_next_daemon_connects_again_whether_the_back_end_dies_before_it_comes_or_behind()
    {
        await using LiveDaemon daemon = await StartAsync();
        string socket = daemon.In("back-end");
        BackEndDisk disk = new(32 << 20);
        using BackEndListener ends = new(socket, (stream, _) => new BlkBackEnd(stream, disk));
        LiveVm vm = await daemon.RunAsync("blk", "requests=0", $"devices: [{{kind: vhost-user-blk, socket: {socket}}}]\n");
        await GoesOnAsync(vm, disk);
        await daemon.RestartAsync();
        await GoesOnAsync(vm, disk); // without anybody's doing
        ends.Last.Dispose();
        await vm.UntilAsync(() => Task.FromResult(ends.Count > 1), "the next daemon's connection");
        await GoesOnAsync(vm, disk);
        await daemon.RestartAsync(() => ends.Last.Dispose());
        await vm.UntilAsync(() => Task.FromResult(ends.Count > 2), "a connection after a while without a daemon");
        await GoesOnAsync(vm, disk);
        await vm.ConsoleAsync();
        await vm.VerifiesAsync();
        Assert.Null(ends.Failure);
    }

    [KvmFact]
    public async Task A_socket_where_vmmd_may_not_connect_is_refused_before_anything_starts()
    {
        await using LiveDaemon daemon = await StartAsync();
        VmmApiException outside = await Assert.ThrowsAsync<VmmApiException>(() => daemon.RunAsync(
            "idle", "", "devices: [{kind: vhost-user-blk, socket: /run/somewhere}]\n"));
        Assert.Contains("is in no storage folder of this host", outside.Message, StringComparison.Ordinal);
        string file = daemon.In("file");
        await File.WriteAllTextAsync(file, "no socket");
        Exception other = await Assert.ThrowsAnyAsync<Exception>(() => daemon.RunAsync(
            "idle", "", $"devices: [{{kind: vhost-user-net, socket: {file}}}]\n"));
        Assert.Contains("is no socket", other.Message, StringComparison.Ordinal);
    }

    private static async Task GoesOnAsync(LiveVm vm, BackEndDisk disk)
    {
        int before = disk.Served;
        await vm.UntilAsync(() => Task.FromResult(disk.Served > before + 50), "the guest's requests are served");
    }
}
