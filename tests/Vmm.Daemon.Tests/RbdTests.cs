using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>vmmd starts processes for disks of Ceph clusters: for pools that an administrator named, and for no others.</summary>
public sealed class RbdTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-rbd-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_pool_that_nobody_allowed_is_not_connected_to()
    {
        RbdSpec rbd = new() { Pool = "vms", Image = "i", User = "vmm" };
        Assert.Null(new StorageFolders([], [], null, ["rbd:vms?user=vmm"]).Problem(rbd));
        foreach (RbdSpec other in new[] { rbd with { User = "admin" }, rbd with { Pool = "x" }, rbd with { Namespace = "n" },
            rbd with { Keyring = "/root/k" }, rbd with { Conf = "/root/c" } })
        {
            Assert.Contains("\"rbdPools\" in vmmd.yaml", new StorageFolders(["/"], [], null, ["rbd:vms?user=vmm"]).Problem(other)!,
                StringComparison.Ordinal);
        }

        RbdProcesses processes = new(_folder, null) { Program = "/nothing" };
        DiskAccess access = new(new StorageFolders(["/"], [])) { VmId = "x", Rbd = processes };
        WorkerException refused = Assert.Throws<WorkerException>(() => WorkerResources.Open(Disk(rbd), access));
        Assert.Contains("rbd:vms?user=vmm is no pool that VMs of this host may use", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void What_is_missing_on_the_host_is_named()
    {
        RbdSpec rbd = new() { Pool = "vms", Image = "i", Conf = Path.Combine(_folder, "none.conf") };
        StorageFolders rule = new([], [], null, [RbdUri.PoolOf(rbd)]);
        DiskAccess access = new(rule) { VmId = "x", Rbd = new RbdProcesses(_folder, null) };
        WorkerException refused = Assert.Throws<WorkerException>(() => WorkerResources.Open(Disk(rbd), access));
        Assert.Matches("install the package librbd1|none.conf", refused.Message); // with the library the file is looked for
        Assert.StartsWith("disk rbd:vms/i", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_program_that_ends_at_once_is_an_error_and_not_a_wait()
    {
        RbdSpec rbd = new() { Pool = "vms", Image = "i", Conf = Path.Combine(_folder, "c"), Keyring = Path.Combine(_folder, "k") };
        File.WriteAllText(rbd.Conf, "");
        File.WriteAllText(rbd.KeyringFile, "");
        TaskCompletionSource<(string? Problem, bool Connected)> answer = new();
        StorageDials dials = new((body, socket) =>
        {
            answer.SetResult((body.Problem, socket is not null));
            return Task.CompletedTask;
        }, new RbdProcesses(_folder, null) { Program = "/bin/false" });
        dials.Serve("vm", [Disk(rbd)]);
        dials.Begin(new StorageDial(1, rbd.Uri));
        (string? problem, bool connected) = await answer.Task.WaitAsync(TimeSpan.FromSeconds(60));
        Assert.False(connected);
        Assert.NotNull(problem);
    }

    [Fact]
    public void The_settings_name_pools()
    {
        DaemonOptions options = DaemonConfig.Apply(
            new DaemonOptions(), "f", "rbdPools:\n  - rbd:vms?user=vmm\n  - rbd:a/b\n", out string problem)!;
        Assert.Equal(["rbd:vms?user=vmm", "rbd:a/b"], options.RbdPools);
        Assert.Equal(["rbd:x"], DaemonOptions.Parse(["--rbd-pools", "rbd:x?user=admin"], out _)!.RbdPools);
        Assert.Null(DaemonConfig.Apply(new DaemonOptions(), "f", "rbdPools:\n  - vms\n", out problem));
        Assert.Contains("rbd:POOL", problem, StringComparison.Ordinal);
    }

    private static DiskSpec Disk(RbdSpec rbd) => new() { Path = rbd.Uri, Rbd = rbd };
}
