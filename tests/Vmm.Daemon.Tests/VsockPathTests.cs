using FsCheck;
using FsCheck.Fluent;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Tests;

/// <summary>Guests that would reach each other's vsock as host programs.</summary>
public sealed class VsockPathTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Theory]
    [InlineData("/run/a.sock", "/run/a.sock_5000", 5000u)]
    [InlineData("/run/a.sock", "/run/a.sock_0", 0u)]
    [InlineData("/run/a.sock", "/run/a.sock_4294967295", 4294967295u)]
    [InlineData("/run/a.sock", "/run/a.sock_4294967296", null)]
    [InlineData("/run/a.sock", "/run/a.sock_05", null)]
    [InlineData("/run/a.sock", "/run/a.sock_", null)]
    [InlineData("/run/a.sock", "/run/a.sock_-1", null)]
    [InlineData("/run/a.sock", "/run/a.sock_5_6", null)]
    [InlineData("/run/a.sock", "/run/a.sock", null)]
    [InlineData("/run/a.sock", "/run/b.sock_5", null)]
    [InlineData("/run/a.sock_5", "/run/a.sock", null)]
    public void A_port_is_a_number_behind_the_path(string own, string socket, uint? port) =>
        Assert.Equal(port, VsockPaths.PortOf(own, socket));

    [Fact]
    public void Whoever_is_reached_is_named_from_either_side() => Prop.ForAll(Gen.Choose(0, int.MaxValue).ToArbitrary(), port =>
    {
        string reached = $"/srv/v_{port}", own = "/srv/x/../v";
        return VsockPaths.Conflict("a", own, "b", reached) is { } one && one.Contains($"port {port} ", StringComparison.Ordinal)
            && one.Contains("vsock path of b", StringComparison.Ordinal)
            && VsockPaths.Conflict("b", reached, "a", own) is { } two
            && two.Contains($"guest of a reaches port {port} ", StringComparison.Ordinal)
            && VsockPaths.Conflict("a", own, "b", reached + "x") is null;
    }).QuickCheckThrowOnFailure();

    [Fact]
    public void Folders_that_are_links_hide_nothing()
    {
        string folder = Directory.CreateTempSubdirectory("vmm-vp-").FullName;
        try
        {
            Directory.CreateDirectory(Path.Combine(folder, "real", "deep"));
            Directory.CreateSymbolicLink(Path.Combine(folder, "link"), "real");
            Directory.CreateSymbolicLink(Path.Combine(folder, "real", "up"), "../link/deep");
            Directory.CreateSymbolicLink(Path.Combine(folder, "round"), "round");
            Assert.Equal(
                VsockPaths.Real(Path.Combine(folder, "real", "deep", "v")), VsockPaths.Real(Path.Combine(folder, "link", "up", "v")));
            Assert.NotNull(VsockPaths.Conflict("a", Path.Combine(folder, "real", "v"), "b", Path.Combine(folder, "link", "v_7")));
            Assert.Null(VsockPaths.Conflict("a", Path.Combine(folder, "round", "v"), "b", Path.Combine(folder, "link", "v_7"))); // and ends
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public async Task Such_a_vm_is_not_created_and_not_changed_into_and_both_are_named()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "vsock: {path: v.sock}\n");
        foreach ((string path, string why) in new[] { ("v.sock_5000", "guest of web1 reaches port 5000"), ("v.sock", "that of web1, too") })
        {
            Problem refused = await DaemonFixture.RefusedAsync(() => daemon.CreateAsync("web2", $"vsock: {{path: {path}}}\n"));
            Assert.Equal((409, "vsock-conflict"), (refused.Status, refused.Code));
            Assert.StartsWith("web2: ", refused.Detail, StringComparison.Ordinal);
            Assert.Contains(why, refused.Detail, StringComparison.Ordinal);
        }

        await daemon.CreateAsync("web2", "vsock: {path: w.sock}\n");
        Problem problem = await DaemonFixture.RefusedAsync(
            () => daemon.Client.ReplaceAsync("web2", daemon.Yaml("web2", "vsock: {path: v.sock_1}\n"), daemon.Folder, null, s_none));
        Assert.Equal("vsock-conflict", problem.Code);
        // its own path is no conflict
        await daemon.Client.ReplaceAsync("web1", daemon.Yaml("web1", "vsock: {path: v.sock, cid: 9}\n"), daemon.Folder, null, s_none);
    }

    [Fact]
    public async Task Stored_by_an_older_daemon_they_do_not_start_beside_each_other()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "vsock: {path: v.sock}\n");
        await daemon.CreateAsync("web2", "vsock: {path: w.sock}\n");
        await daemon.StopDaemonAsync();
        using (Inventory.VmInventory inventory = Inventory.VmInventory.Open(Path.Combine(daemon.Options.StateFolder, "inventory.db")))
        {
            Inventory.VmRecord record = inventory.Vms.All().Single(r => r.Name is "web2");
            inventory.Vms.Update(record with { Spec = record.Spec.Replace("w.sock", "v.sock_3", StringComparison.Ordinal) });
        }

        await daemon.StartDaemonAsync();
        await daemon.Client.DoAsync("web1", "start", s_none);
        Problem refused = await DaemonFixture.RefusedAsync(() => daemon.Client.DoAsync("web2", "start", s_none));
        Assert.Equal((409, "vsock-conflict"), (refused.Status, refused.Code));
        await daemon.Client.DoAsync("web1", "stop", s_none);
        await daemon.Client.DoAsync("web2", "start", s_none);
        Assert.Contains(
            "would reach port 3",
            (await DaemonFixture.RefusedAsync(() => daemon.Client.DoAsync("web1", "start", s_none))).Detail,
            StringComparison.Ordinal);
    }
}
