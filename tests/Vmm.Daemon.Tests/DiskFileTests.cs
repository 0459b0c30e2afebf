using Vmm.Contracts.Rest;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Tests;

/// <summary>Files of running VMs' disks that vanish or are cut: told once, by name. The files are real, the workers are fakes.</summary>
public sealed class DiskFileTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task A_file_that_vanishes_is_an_event_once_until_it_is_back()
    {
        await using DaemonFixture daemon = await CreateAsync("disks:\n- path: root.img\n- path: data.img\n");
        string data = Path.Combine(daemon.Folder, "data.img");
        await LookAsync(daemon); // nothing runs
        await daemon.Client.DoAsync("web1", "start", s_none);
        await LookAsync(daemon);
        Assert.Empty(await EventsAsync(daemon));
        File.Move(data, data + ".away");
        await LookAsync(daemon);
        await LookAsync(daemon);
        DaemonEvent gone = Assert.Single(await EventsAsync(daemon));
        Assert.Equal(("disk-file-gone", "web1"), (gone.Kind, gone.Vm));
        Assert.Contains($"disk1 ({data})", gone.Message, StringComparison.Ordinal);
        Assert.Contains("vm copy-disk", gone.Message, StringComparison.Ordinal);
        for (int flood = 0; flood < 20; flood++)
        {
            File.Move(data + ".away", data);
            await LookAsync(daemon); // well again
            File.Move(data, data + ".away");
            await LookAsync(daemon);
        }

        Assert.Single(await EventsAsync(daemon)); // what comes and goes is not told all the time
        await File.WriteAllBytesAsync(Path.Combine(daemon.Folder, "root.img"), new byte[4096], s_none); // cut in place
        await LookAsync(daemon);
        DaemonEvent cut = (await EventsAsync(daemon))[^1];
        Assert.Equal("disk-file-short", cut.Kind);
        Assert.Contains("from 1048576 to 4096 bytes", cut.Message, StringComparison.Ordinal);
        await daemon.Client.DoAsync("web1", "stop", s_none);
        await LookAsync(daemon);
        Assert.Equal(2, (await EventsAsync(daemon)).Count);
    }

    [Fact]
    public async Task Images_below_the_top_are_looked_at_as_long_as_they_are_below()
    {
        await using DaemonFixture daemon = await CreateAsync("disks:\n- path: top.qcow2\n  format: qcow2\n", MakeChain);
        string top = Path.Combine(daemon.Folder, "top.qcow2"), middle = Path.Combine(daemon.Folder, "middle.qcow2");
        string root = Path.Combine(daemon.Folder, "root.img");
        await daemon.Client.DoAsync("web1", "start", s_none);
        await LookAsync(daemon);
        Assert.Empty(await EventsAsync(daemon));
        await File.WriteAllBytesAsync(root, new byte[8192], s_none);
        await LookAsync(daemon);
        DaemonEvent cut = Assert.Single(await EventsAsync(daemon));
        Assert.Equal("disk-file-short", cut.Kind);
        Assert.Contains($"disk0: the image below, {root},", cut.Message, StringComparison.Ordinal);
        File.Delete(root);
        await LookAsync(daemon);
        Assert.Equal("disk-file-gone", (await EventsAsync(daemon))[^1].Kind);

        // The top needs the others no more, as after a stream: they may go.
        ImageRebase.Rename(top, null, null);
        File.Delete(middle);
        await LookAsync(daemon);
        Assert.Equal(2, (await EventsAsync(daemon)).Count);
    }

    [Fact]
    public async Task A_disk_of_a_server_has_no_file_that_could_be_gone()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(_ => new DaemonOptions { NbdServers = ["/run/nbd.sock"] });
        await daemon.CreateAsync("web1", "disks:\n- nbd: {socket: /run/nbd.sock}\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        await LookAsync(daemon);
        Assert.Empty(await EventsAsync(daemon));
    }

    /// <summary>What was the top of a disk is an image below after a snapshot, and may go when it is not needed any more.</summary>
    [Fact]
    public async Task A_top_that_became_a_base_is_looked_at_as_one()
    {
        await using DaemonFixture daemon = await CreateAsync("disks:\n- path: root.img\n");
        string root = Path.Combine(daemon.Folder, "root.img"), top = Path.Combine(daemon.Folder, "root.s1.qcow2");
        await daemon.Client.DoAsync("web1", "start", s_none);
        await LookAsync(daemon);
        JobInfo job = await daemon.Client.SnapshotAsync("web1", new SnapshotWish("s1"), s_none);
        await foreach (JobInfo now in daemon.Client.WatchJobAsync(job.Id, s_none))
        {
            job = now;
        }

        Assert.Equal(JobState.Done, job.State);
        await LookAsync(daemon);
        await File.WriteAllBytesAsync(root, new byte[8192], s_none);
        await LookAsync(daemon);
        Assert.Contains($"disk0: the image below, {root},", Assert.Single(await EventsAsync(daemon)).Message, StringComparison.Ordinal);
        ImageRebase.Rename(top, null, null); // as a stream ends
        File.Delete(root);
        await LookAsync(daemon);
        Assert.Single(await EventsAsync(daemon));
    }

    private static void MakeChain(string folder)
    {
        Qcow2CreateOptions options = new() { DiskSize = 1 << 20 };
        string top = Path.Combine(folder, "top.qcow2"), middle = Path.Combine(folder, "middle.qcow2");
        Qcow2Creator.Create(middle, options with { BackingFile = "root.img", BackingFormat = "raw" });
        Qcow2Creator.Create(top, options with { BackingFile = "middle.qcow2", BackingFormat = "qcow2" });
    }

    private static async Task<DaemonFixture> CreateAsync(string disks, Action<string>? prepare = null)
    {
        DaemonFixture daemon = await DaemonFixture.StartAsync();
        foreach (string name in (string[])["root.img", "data.img"])
        {
            await File.WriteAllBytesAsync(Path.Combine(daemon.Folder, name), new byte[1 << 20]);
        }

        prepare?.Invoke(daemon.Folder);
        await daemon.CreateAsync("web1", disks);
        return daemon;
    }

    private static Task LookAsync(DaemonFixture daemon) =>
        Task.Run(() => daemon.Host.Vms.Get("web1").DiskFiles.Look());

    private static async Task<List<DaemonEvent>> EventsAsync(DaemonFixture daemon) =>
    [
        .. (await daemon.Client.EventsOfAsync("web1", s_none)).Events
            .Where(e => e.Kind.StartsWith("disk-file", StringComparison.Ordinal)),
    ];
}
