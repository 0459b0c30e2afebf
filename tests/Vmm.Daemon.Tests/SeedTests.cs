using System.Text;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Logging;
using Vmm.Daemon.Vms;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>The seed of a VM's first start: its guest gets it, and nobody else; it stays as long as it should, whatever dies.</summary>
public sealed class SeedTests : IAsyncLifetime
{
    private const string Key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExample ann@host";
    private const string Secret = "hush-hush-4711x", Hash = "$6$saltsalt$hush4711xhushhushhushhushhush";

    private static readonly CancellationToken s_none = CancellationToken.None;

    private static readonly VmSeedWish s_all = new(
        Encoding.UTF8.GetBytes("#cloud-config\nword: " + Secret), "version: 2\n"u8.ToArray(), [Key], "web1.example", Hash);

    private DaemonFixture _daemon = null!;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync(folder => new DaemonOptions
        {
            Log = new LogOptions { Level = LogLevel.Debug, File = Path.Combine(folder, "vmmd.log") },
        });
        await File.WriteAllBytesAsync(Path.Combine(_daemon.Folder, "a.img"), new byte[4096]);
        await _daemon.CreateAsync("web1", "disks:\n  - path: a.img\n");
    }

    public async Task DisposeAsync() => await _daemon.DisposeAsync();

    private string[] Files => Directory.Exists(_daemon.Options.SeedsFolder) ? Directory.GetFiles(_daemon.Options.SeedsFolder) : [];

    private FakeWorker Worker => _daemon.Workers.Alive.Values.Single();

    private Task<VmSeedInfo> PutAsync(VmSeedWish wish) => _daemon.Client.PutSeedAsync("web1", wish, s_none);

    private async Task<VmSeedState> StateAsync() => (await _daemon.Client.SeedAsync("web1", s_none)).State;

    private Task<VmInfo> DoAsync(string verb) => _daemon.Client.DoAsync("web1", verb, s_none);

    [Fact]
    public async Task A_guest_gets_its_seed_as_the_last_disk_and_nobody_is_told_of_its_content()
    {
        Assert.Equal(VmSeedState.None, await StateAsync());
        VmSeedInfo seed = await PutAsync(s_all);
        string file = Assert.Single(Files);
        Assert.Equal((VmSeedState.Ready, false, new FileInfo(file).Length), (seed.State, seed.Once, seed.SizeBytes));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(file));
        Assert.Equal(
            UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, File.GetUnixFileMode(_daemon.Options.SeedsFolder));
        byte[] disk = await File.ReadAllBytesAsync(file);
        Assert.True(disk.AsSpan().IndexOf(Encoding.UTF8.GetBytes(Secret)) > 0 && disk.AsSpan().IndexOf(Encoding.UTF8.GetBytes(Hash)) > 0);

        await DoAsync("start");
        IReadOnlyList<DeviceInfo> devices = (await _daemon.Client.DevicesAsync("web1", s_none)).Devices;
        Assert.Equal(["disk0", "disk1"], devices.Select(d => d.Name));
        Assert.Equal((file, true, true), (devices[1].Source, devices[1].ReadOnly, devices[1].Stored));
        Problem refused = await DaemonFixture.RefusedAsync(() => PutAsync(s_all with { Hostname = "other" }));
        Assert.Equal((409, ControlCodes.WrongState), (refused.Status, refused.Code));
        Assert.Equal(seed, await PutAsync(s_all)); // the same again changes nothing
        Assert.Equal(file, Assert.Single(Files));

        string name = Path.GetFileName(file);
        foreach (string path in (string[])["vms", "vms/web1", "vms/web1/spec", "vms/web1/seed", "vms/web1/devices", "vms/web1/events",
            "jobs", "openapi/v1.json"])
        {
            string answer = await _daemon.GetAsync(path is "openapi/v1.json" ? "/" + path : "/api/v1/" + path);
            Assert.DoesNotContain("4711x", answer, StringComparison.Ordinal);
            Assert.DoesNotContain("AAAAC3Nza", answer, StringComparison.Ordinal);
        }

        await DoAsync("stop");
        Assert.Equal(VmSeedState.Ready, await StateAsync());
        await _daemon.StopDaemonAsync();
        foreach (string where in Directory.EnumerateFiles(_daemon.Folder, "*", SearchOption.AllDirectories).Where(f => f != file))
        {
            string text = Encoding.Latin1.GetString(await File.ReadAllBytesAsync(where));
            Assert.False(text.Contains("4711x", StringComparison.Ordinal) || text.Contains("AAAAC3Nza", StringComparison.Ordinal), where);
        }

        await _daemon.StartDaemonAsync();
        Assert.Equal(name, Path.GetFileName(Assert.Single(Files)));
        await _daemon.Client.DeleteAsync("web1", s_none);
        Assert.Empty(Files);
    }

    [Fact]
    public async Task A_seed_for_one_run_is_deleted_when_that_run_is_over_and_not_before()
    {
        Assert.True((await PutAsync(s_all with { Once = true })).Once);
        _daemon.Workers.RefuseLaunch = new WorkerException("disk-open-failed", "not now");
        await DaemonFixture.RefusedAsync(() => DoAsync("start"));
        _daemon.Workers.RefuseLaunch = null;
        Assert.Equal(VmSeedState.Ready, await StateAsync()); // no run has begun
        await DoAsync("start");
        Assert.Equal(VmSeedState.Used, await StateAsync());
        await _daemon.RestartAsync();
        Assert.Equal(VmSeedState.Used, await StateAsync());

        // Saved and restored it is the same run.
        string saved = Path.Combine(_daemon.Folder, "saved");
        JobInfo job = await _daemon.EndAsync(await _daemon.Client.SaveAsync("web1", saved, s_none));
        Assert.True(job.State == JobState.Done, job.Error?.Detail);
        Assert.Single(Files);
        Assert.Equal("vm-saved", (await DaemonFixture.RefusedAsync(() => _daemon.Client.DeleteSeedAsync("web1", s_none))).Code);
        job = await _daemon.EndAsync(await _daemon.Client.RestoreAsync(saved, s_none));
        Assert.True(job.State == JobState.Done, job.Error?.Detail);
        Assert.Equal(2, (await _daemon.Client.DevicesAsync("web1", s_none)).Devices.Count);

        // The guest reboots: its next run has none.
        Worker.End(new WorkerExit(ExitReason.Reset, 0, null));
        Assert.Equal(VmState.Running, await _daemon.StateSoonAsync("web1", VmState.Running));
        await DaemonFixture.UntilAsync(() => !_daemon.Workers.Alive.IsEmpty);
        Assert.Equal("disk0", Assert.Single((await _daemon.Client.DevicesAsync("web1", s_none)).Devices).Name);
        Assert.Equal(VmSeedState.Deleted, await StateAsync());
        Assert.Empty(Files);

        // The same again is no new first start; another one is.
        await DoAsync("stop");
        Assert.Equal(VmSeedState.Deleted, (await PutAsync(s_all with { Once = true })).State);
        Assert.Equal(VmSeedState.Ready, (await PutAsync(s_all with { Once = true, Hostname = "other" })).State);
    }

    [Fact]
    public async Task A_guest_that_ends_within_its_start_has_had_its_run()
    {
        await PutAsync(s_all with { Once = true });
        _daemon.Workers.Starting = async worker =>
        {
            worker.End(new WorkerExit(ExitReason.PowerOff, 0, null));
            for (int i = 0; i < 2400 && (await _daemon.Client.ShowAsync("web1", s_none)).LastExit is null; i++)
            {
                await Task.Delay(25);
            }
        };
        await DoAsync("start");
        Assert.Equal(VmSeedState.Deleted, await StateAsync());
        Assert.Empty(Files);
    }

    [Fact]
    public async Task A_seed_whose_run_ends_while_no_daemon_is_there_is_deleted_by_the_next_one()
    {
        await PutAsync(s_all with { Once = true });
        await DoAsync("start");
        await _daemon.StopDaemonAsync();
        Worker.End(new WorkerExit(ExitReason.PowerOff, 0, null));
        await File.WriteAllTextAsync(Path.Combine(_daemon.Options.SeedsFolder, "left.iso"), Secret); // of a daemon that died amid a change
        await _daemon.StartDaemonAsync();
        Assert.Equal(VmSeedState.Deleted, await StateAsync());
        Assert.Empty(Files);
    }

    [Fact]
    public async Task Its_disk_is_in_no_spec_and_is_neither_moved_nor_detached_by_a_change_of_the_spec()
    {
        await PutAsync(s_all);
        await File.WriteAllBytesAsync(Path.Combine(_daemon.Folder, "b.img"), new byte[4096]);
        DeviceInfo added = await _daemon.Client.AttachAsync("web1", "disks", $"path: {_daemon.Folder}/b.img\n", stay: true, s_none);
        Assert.Equal(("disk1", Path.Combine(_daemon.Folder, "b.img")), (added.Name, added.Source));
        IReadOnlyList<DeviceInfo> devices = (await _daemon.Client.DevicesAsync("web1", s_none)).Devices;
        Assert.Equal((3, Assert.Single(Files)), (devices.Count, devices[2].Source));
        Assert.DoesNotContain(".iso", await _daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
        foreach (bool running in (bool[])[false, true])
        {
            Problem refused = await DaemonFixture.RefusedAsync(
                () => _daemon.Client.DetachAsync("web1", "disk2", TimeSpan.Zero, force: true, forGood: true, s_none));
            Assert.Contains("vmmctl vm seed web1 --remove", refused.Detail, StringComparison.Ordinal);
            await (running ? Task.CompletedTask : DoAsync("start"));
        }

        await _daemon.Client.DetachAsync("web1", "disk0", TimeSpan.Zero, force: true, forGood: true, s_none);
        Assert.Equal(["b.img", Path.GetFileName(Files[0])],
            (await _daemon.Client.DevicesAsync("web1", s_none)).Devices.Select(d => Path.GetFileName(d.Source)));
        await DoAsync("stop");
        await _daemon.Client.DeleteSeedAsync("web1", s_none);
        Assert.Empty(Files);
        Assert.Equal("disk0", Assert.Single((await _daemon.Client.DevicesAsync("web1", s_none)).Devices).Name);
        await _daemon.Client.DeleteSeedAsync("web1", s_none);
    }

    [Fact]
    public async Task What_is_not_sound_is_refused_by_its_field_and_without_its_content()
    {
        foreach ((VmSeedWish wish, string field) in new[]
        {
            (new VmSeedWish(), ""), (new VmSeedWish(Once: true), ""), (new VmSeedWish(UserData: new byte[(256 << 10) + 1]), "userData"),
            (new VmSeedWish(NetworkConfig: new byte[(256 << 10) + 1]), "networkConfig"), (new VmSeedWish(SshKeys: ["4711x"]), "sshKeys[0]"),
            (new VmSeedWish(SshKeys: [Key, "-----BEGIN OPENSSH PRIVATE KEY-----4711x"]), "sshKeys[1]"),
            (new VmSeedWish(SshKeys: [Key + "\n4711x: x"]), "sshKeys[0]"),
            (new VmSeedWish(SshKeys: [.. Enumerable.Repeat(Key, 101)]), "sshKeys"),
            (new VmSeedWish(SshKeys: [Key + new string('ü', 40 << 10)]), "sshKeys"), (new VmSeedWish(Hostname: "a\nb4711x"), "hostname"),
            (new VmSeedWish(Hostname: ""), "hostname"), (new VmSeedWish(PasswordHash: "4711x"), "passwordHash"),
            (new VmSeedWish(PasswordHash: "$6$salt$4711x\nroot: 1"), "passwordHash"),
        })
        {
            Problem problem = await DaemonFixture.RefusedAsync(() => PutAsync(wish));
            Assert.Equal((422, "seed-invalid", field), (problem.Status, problem.Code, problem.Errors![0].Field));
            Assert.DoesNotContain("4711x", problem.Detail, StringComparison.Ordinal);
        }

        Assert.Empty(Files);
        byte[] most = [.. Enumerable.Range(0, 256 << 10).Select(b => (byte)b)];
        IEnumerable<string> keys = Enumerable.Range(0, 100).Select(i => $"{Key}{i}\"");
        await PutAsync(new VmSeedWish(UserData: most, NetworkConfig: most, SshKeys: [.. keys], Hostname: new string('a', 253)));
        Assert.True((await File.ReadAllBytesAsync(Files[0])).AsSpan().IndexOf(most) > 0);
        Assert.Equal("vm-not-found", (await DaemonFixture.RefusedAsync(() => _daemon.Client.PutSeedAsync("no", s_all, s_none))).Code);
        string disks = "";
        for (int i = 0; i < SpecValidation.MaxDisks; i++)
        {
            await File.WriteAllBytesAsync(Path.Combine(_daemon.Folder, $"d{i}.img"), new byte[512]);
            disks += $"  - {{path: d{i}.img}}\n";
        }

        await _daemon.CreateAsync("full", "disks:\n" + disks);
        Problem full = await DaemonFixture.RefusedAsync(() => _daemon.Client.PutSeedAsync("full", s_all, s_none));
        Assert.Contains("no room for a seed", full.Title, StringComparison.Ordinal);
    }

    /// <summary>The rule of storage folders has one way around it: a VM's own seed, to read.</summary>
    [Fact]
    public void A_seed_is_opened_for_its_own_vm_and_to_read_only()
    {
        string id = Guid.NewGuid().ToString(), other = Guid.NewGuid().ToString(), folder = Path.Combine(_daemon.Folder, "s");
        SeedStore store = new(folder);
        DiskSpec disk = store.DiskOf(store.Add(id, new byte[4096]));
        DiskAccess access = DiskAccess.None with { Seeds = store, VmId = id };
        using (DiskFiles files = DiskFiles.Open(disk, access))
        {
            Assert.Single(files.Descriptors(0));
        }

        foreach ((DiskSpec bad, DiskAccess by) in new[]
        {
            (disk, access with { VmId = other }), (disk, access with { VmId = "" }), (disk, access with { Seeds = null }),
            (disk with { ReadOnly = false }, access),
            (disk with { Source = disk.Source with { Path = Path.Combine(folder, "..", "s", Path.GetFileName(disk.Path)) } }, access),
            (disk with { Source = disk.Source with { Path = Path.Combine(folder, id + ".x") } }, access),
        })
        {
            Assert.Throws<WorkerException>(() => DiskFiles.Open(bad, by));
        }
    }
}
