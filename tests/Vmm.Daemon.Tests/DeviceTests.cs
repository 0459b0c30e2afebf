using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;

namespace Vmm.Daemon.Tests;

/// <summary>Devices that are attached and detached over REST: the running VM, the stored spec, and both after a failure.</summary>
public sealed class DeviceTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task The_vnode_that_a_device_is_near_is_told_and_kept()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync(
            "web1", "cpus: 2\nnuma: {vnodes: [{cpus: 0, memory: 64MiB}, {cpus: 1, memory: 64MiB}]}\ndisks:\n  - {path: "
                + File(daemon, "root.img") + ", vnode: 1}\n");
        Assert.Equal(1, Assert.Single((await daemon.Client.DevicesAsync("web1", s_none)).Devices).Vnode);
        Assert.Equal(0, (await daemon.Client.AttachAsync("web1", "nets", "{tap: tap9, vnode: 0}", stay: true, s_none)).Vnode);
        Assert.Contains("{tap: \"tap9\", vnode: 0}", await daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
        Problem none =
            await DaemonFixture.RefusedAsync(() => daemon.Client.AttachAsync("web1", "nets", "{tap: tap8, vnode: 2}", stay: true, s_none));
        Assert.Contains("there is no vnode 2: the VM has 2 (0-1)", none.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_attached_disk_is_in_the_running_vm_and_in_the_spec_whose_text_is_kept()
    {
        await using DaemonFixture daemon = await RunningAsync("# mine\ndisks:\n  - path: root.img # the first\n\n# below\nrng: true\n");
        DeviceInfo added = await daemon.Client.AttachAsync(
            "web1", "disks", $"path: {File(daemon, "data.img")}\nserial: D1\n", stay: true, s_none);
        Assert.Equal(("disk1", 20, true), (added.Name, added.Slot, added.Stored));
        string item = $$"""{path: "{{File(daemon, "data.img")}}", serial: "D1"}""";
        Assert.Equal(
            daemon.Yaml("web1", $"# mine\ndisks:\n  - path: root.img # the first\n  - {item}\n\n# below\nrng: true\n"),
            await daemon.Client.SpecAsync("web1", s_none));
        Assert.Equal(2, (await daemon.Client.ShowAsync("web1", s_none)).Revision);
        DeviceList devices = await daemon.Client.DevicesAsync("web1", s_none);
        Assert.Equal([("disk0", true), ("disk1", true)], devices.Devices.Select(d => (d.Name, d.Stored)));

        Assert.Equal(
            DeviceRemoval.Removed,
            (await daemon.Client.DetachAsync("web1", "disk1", TimeSpan.FromSeconds(1), force: false, forGood: true, s_none)).Outcome);
        Assert.Equal(
            daemon.Yaml("web1", "# mine\ndisks:\n  - path: root.img # the first\n\n# below\nrng: true\n"),
            await daemon.Client.SpecAsync("web1", s_none));
        Assert.Equal("disk0", Assert.Single((await daemon.Client.DevicesAsync("web1", s_none)).Devices).Name);
    }

    [Fact]
    public async Task A_temporary_disk_is_not_in_the_spec_and_its_file_is_in_use()
    {
        await using DaemonFixture daemon = await RunningAsync("");
        string path = File(daemon, "data.img"), before = await daemon.Client.SpecAsync("web1", s_none);
        DeviceInfo added = await daemon.Client.AttachAsync("web1", "disks", $"path: {path}\n", stay: false, s_none);
        Assert.False(added.Stored);
        Assert.Equal(before, await daemon.Client.SpecAsync("web1", s_none));
        Assert.Equal(["web1"], daemon.Host.Vms.UsersOf(path));
        await daemon.RestartAsync();
        Assert.Equal(["web1"], daemon.Host.Vms.UsersOf(path));
        Assert.False(Assert.Single((await daemon.Client.DevicesAsync("web1", s_none)).Devices).Stored);
        await daemon.Client.DoAsync("web1", "stop", s_none);
        Assert.Empty(daemon.Host.Vms.UsersOf(path));
        Assert.Empty((await daemon.Client.DevicesAsync("web1", s_none)).Devices);
    }

    [Fact]
    public async Task A_vm_that_does_not_run_is_changed_for_its_next_start()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        string path = File(daemon, "data.img");
        DeviceInfo added = await daemon.Client.AttachAsync("web1", "disks", $"path: {path}\n", stay: true, s_none);
        Assert.Equal(("disk0", null, true), (added.Name, added.Slot, added.Stored));
        await daemon.Client.AttachAsync("web1", "nets", "{tap: tap7}", stay: true, s_none);
        Assert.Equal(["disk0", "net0"], (await daemon.Client.DevicesAsync("web1", s_none)).Devices.Select(d => d.Name));
        await daemon.Client.DoAsync("web1", "start", s_none);
        Assert.Equal(["disk0", "net0"], (await daemon.Client.DevicesAsync("web1", s_none)).Devices.Select(d => d.Name));
        await daemon.Client.DoAsync("web1", "stop", s_none);
        await daemon.Client.DetachAsync("web1", "disk0", TimeSpan.Zero, force: false, forGood: true, s_none);
        Assert.Equal("net0", Assert.Single((await daemon.Client.DevicesAsync("web1", s_none)).Devices).Name);
        Assert.Equal("wrong-state", (await DaemonFixture.RefusedAsync(
            () => daemon.Client.AttachAsync("web1", "disks", $"path: {path}\n", stay: false, s_none))).Code);
    }

    [Fact]
    public async Task A_guest_that_clings_to_a_disk_is_told_of_and_a_late_eject_changes_the_spec_then()
    {
        await using DaemonFixture daemon = await RunningAsync("disks:\n  - path: root.img\n  - path: data.img\n");
        FakeWorker guest = daemon.Workers.Alive.Values.Single();
        guest.Clings = true;
        Problem held = await DaemonFixture.RefusedAsync(
            () => daemon.Client.DetachAsync("web1", "disk1", TimeSpan.FromSeconds(3), force: false, forGood: true, s_none));
        Assert.Equal((409, "device-held"), (held.Status, held.Code));
        Assert.Contains("did not let go of disk1 in 3 s", held.Detail, StringComparison.Ordinal);
        Assert.Contains("data.img", await daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
        guest.Eject("disk1");
        for (int i = 0; i < 500 && (await daemon.Client.SpecAsync("web1", s_none)).Contains("data.img", StringComparison.Ordinal); i++)
        {
            await Task.Delay(10);
        }

        Assert.Equal(daemon.Yaml("web1", "disks:\n  - path: root.img\n"), await daemon.Client.SpecAsync("web1", s_none));
        Assert.Contains((await daemon.Client.EventsOfAsync("web1", s_none)).Events,
            e => e.Kind is "device-removed" && e.Message!.Contains("disk1", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Force_takes_it_and_a_temporary_removal_leaves_the_spec()
    {
        await using DaemonFixture daemon = await RunningAsync("disks:\n  - path: data.img\n");
        daemon.Workers.Alive.Values.Single().Clings = true;
        Assert.Equal(
            DeviceRemoval.Forced,
            (await daemon.Client.DetachAsync("web1", "disk0", TimeSpan.Zero, force: true, forGood: false, s_none)).Outcome);
        Assert.Equal(daemon.Yaml("web1", "disks:\n  - path: data.img\n"), await daemon.Client.SpecAsync("web1", s_none));
        Assert.Empty((await daemon.Client.DevicesAsync("web1", s_none)).Devices);
    }

    [Fact]
    public async Task What_cannot_be_attached_changes_nothing_and_says_why()
    {
        await using DaemonFixture daemon = await RunningAsync("disks: [{path: root.img}]\n");
        string before = await daemon.Client.SpecAsync("web1", s_none), path = File(daemon, "data.img");
        Assert.Equal((422, "spec-invalid"), await CodeOf("disks", $"path: {path}\ncash: direct\n"));
        Assert.Equal((422, "spec-invalid"), await CodeOf("disks", "path: /nowhere/x.img\n"));
        Assert.Equal((422, "spec-invalid"), await CodeOf("disks", "path: x.img\n"));
        Assert.Equal((422, "spec-invalid"), await CodeOf("disks", "- path: x\n"));
        Assert.Equal((422, "spec-invalid"), await CodeOf("disks", ""));
        Assert.Equal((422, "spec-invalid"), await CodeOf("nets", "tap: a-name-that-is-too-long\n"));
        Assert.Equal((409, "spec-not-editable"), await CodeOf("disks", $"path: {path}\n")); // its list is in flow style
        FakeWorker guest = daemon.Workers.Alive.Values.Single();
        guest.RefusePlug = new WorkerException("no-slot", "all slots are taken");
        Assert.Equal((409, "no-slot"), await CodeOf("nets", "tap: tap7\n"));
        Assert.Equal(before, await daemon.Client.SpecAsync("web1", s_none));
        Assert.Equal(1, (await daemon.Client.ShowAsync("web1", s_none)).Revision);
        Assert.Equal(
            (404, "device-not-found"),
            await Code(() => daemon.Client.DetachAsync("web1", "disk7", TimeSpan.Zero, force: false, forGood: true, s_none)));

        async Task<(int, string)> CodeOf(string list, string yaml) =>
            await Code(() => daemon.Client.AttachAsync("web1", list, yaml, stay: true, s_none));
    }

    private static async Task<(int, string)> Code(Func<Task> request)
    {
        Problem problem = await DaemonFixture.RefusedAsync(request);
        return (problem.Status, problem.Code);
    }

    private static string File(DaemonFixture daemon, string name)
    {
        string path = Path.Combine(daemon.Folder, name);
        System.IO.File.WriteAllBytes(path, new byte[4096]);
        return path;
    }

    private static async Task<DaemonFixture> RunningAsync(string more)
    {
        DaemonFixture daemon = await DaemonFixture.StartAsync();
        File(daemon, "root.img");
        File(daemon, "data.img");
        await daemon.CreateAsync("web1", more);
        await daemon.Client.DoAsync("web1", "start", s_none);
        return daemon;
    }
}
