using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;

namespace Vmm.Daemon.Tests;

/// <summary>Disks that grow, of VMs that run and that do not. The files are real, the workers are fakes.</summary>
public sealed class DiskSizeTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_file_grows_and_never_shrinks(bool running)
    {
        await using DaemonFixture daemon = await CreateAsync("");
        if (running)
        {
            await daemon.Client.DoAsync("web1", "start", s_none);
        }

        Assert.Equal(new DiskSize("disk0", 1 << 20), await daemon.Client.ResizeDiskAsync("web1", "disk0", null, s_none));
        Assert.Equal(new DiskSize("disk0", 5 << 20), await daemon.Client.ResizeDiskAsync("web1", "disk0", 5 << 20, s_none));
        Assert.Equal(5 << 20, new FileInfo(Path.Combine(daemon.Folder, "root.img")).Length);
        Assert.Equal(new DiskSize("disk0", 5 << 20), await daemon.Client.ResizeDiskAsync("web1", "disk0", 5 << 20, s_none)); // as asked
        Problem shrinks = await DaemonFixture.RefusedAsync(() => daemon.Client.ResizeDiskAsync("web1", "disk0", 4 << 20, s_none));
        Assert.Equal((422, "disk-shrinks"), (shrinks.Status, shrinks.Code));
        Assert.Contains("does not shrink", shrinks.Detail, StringComparison.Ordinal);
        Assert.Equal(5 << 20, new FileInfo(Path.Combine(daemon.Folder, "root.img")).Length);
        Assert.Contains((await daemon.Client.EventsOfAsync("web1", s_none)).Events,
            e => e.Kind is "disk-resized" && e.Message is "disk0 has 5242880 bytes");
    }

    [Theory]
    [InlineData("disk0", 0L, 422, "disk-not-resizable")]
    [InlineData("disk0", -4096L, 422, "disk-not-resizable")]
    [InlineData("disk0", (2L << 20) + 512, 422, "disk-not-resizable")]
    [InlineData("disk0", long.MaxValue - 4095, 507, "no-space")]
    [InlineData("disk1", 2L << 20, 422, "disk-not-resizable")] // read-only
    [InlineData("disk2", 2L << 20, 404, "device-not-found")]
    [InlineData("net0", 2L << 20, 404, "device-not-found")]
    public async Task What_cannot_be_is_refused_and_changes_nothing(string disk, long bytes, int status, string code)
    {
        await using DaemonFixture daemon = await CreateAsync("  - path: data.img\n    readOnly: true\nnets:\n  - tap: tap7\n");
        foreach (bool running in (bool[])[false, true])
        {
            if (running)
            {
                await daemon.Client.DoAsync("web1", "start", s_none);
            }

            Problem refused = await DaemonFixture.RefusedAsync(() => daemon.Client.ResizeDiskAsync("web1", disk, bytes, s_none));
            Assert.Equal((status, code), (refused.Status, refused.Code));
            Assert.Equal(1 << 20, new FileInfo(Path.Combine(daemon.Folder, "root.img")).Length);
            Assert.Equal(1 << 20, new FileInfo(Path.Combine(daemon.Folder, "data.img")).Length);
        }
    }

    /// <summary>The file of an image is not the disk: who has it open makes it larger.</summary>
    [Fact]
    public async Task An_image_grows_where_it_is_open()
    {
        await using DaemonFixture daemon = await CreateAsync("  - path: image.qcow2\n    format: qcow2\n", folder =>
            Qcow2Creator.Create(Path.Combine(folder, "image.qcow2"), new Qcow2CreateOptions { DiskSize = 1 << 20 }));
        string path = Path.Combine(daemon.Folder, "image.qcow2");
        long length = new FileInfo(path).Length;
        Problem refused = await DaemonFixture.RefusedAsync(() => daemon.Client.ResizeDiskAsync("web1", "disk1", 2 << 20, s_none));
        Assert.Equal((422, "disk-not-resizable"), (refused.Status, refused.Code));
        Assert.Contains("vmmctl disk resize", refused.Detail, StringComparison.Ordinal);
        Assert.Equal(new DiskSize("disk1", 1 << 20), await daemon.Client.ResizeDiskAsync("web1", "disk1", null, s_none));
        await daemon.Client.DoAsync("web1", "start", s_none);
        Assert.Equal(new DiskSize("disk1", 2 << 20), await daemon.Client.ResizeDiskAsync("web1", "disk1", 2 << 20, s_none));
        Problem shrinks = await DaemonFixture.RefusedAsync(() => daemon.Client.ResizeDiskAsync("web1", "disk1", 4096, s_none));
        Assert.Equal((422, "disk-shrinks"), (shrinks.Status, shrinks.Code));
        Assert.Equal(length, new FileInfo(path).Length); // the worker's to change
    }

    [Fact]
    public async Task A_disk_that_somebody_else_writes_does_not_grow_behind_their_back()
    {
        await using DaemonFixture daemon = await CreateAsync("");
        using RawFileBackend other = RawFileBackend.Open(Path.Combine(daemon.Folder, "root.img"));
        Problem refused = await DaemonFixture.RefusedAsync(() => daemon.Client.ResizeDiskAsync("web1", "disk0", 2 << 20, s_none));
        Assert.Equal((409, "disk-in-use"), (refused.Status, refused.Code));
        Assert.Equal(1 << 20, new FileInfo(Path.Combine(daemon.Folder, "root.img")).Length);
    }

    [Fact]
    public async Task A_disk_that_was_plugged_in_grows_too()
    {
        await using DaemonFixture daemon = await CreateAsync("");
        await daemon.Client.DoAsync("web1", "start", s_none);
        DeviceInfo added = await daemon.Client.AttachAsync(
            "web1", "disks", $"path: {Path.Combine(daemon.Folder, "data.img")}\n", stay: false, s_none);
        Assert.Equal(new DiskSize(added.Name, 2 << 20), await daemon.Client.ResizeDiskAsync("web1", added.Name, 2 << 20, s_none));
        Assert.Equal(2 << 20, new FileInfo(Path.Combine(daemon.Folder, "data.img")).Length);
    }

    private static async Task<DaemonFixture> CreateAsync(string more, Action<string>? prepare = null)
    {
        DaemonFixture daemon = await DaemonFixture.StartAsync();
        foreach (string name in (string[])["root.img", "data.img"])
        {
            await File.WriteAllBytesAsync(Path.Combine(daemon.Folder, name), new byte[1 << 20]);
        }

        prepare?.Invoke(daemon.Folder);
        await daemon.CreateAsync("web1", "disks:\n  - path: root.img\n" + more);
        return daemon;
    }
}
