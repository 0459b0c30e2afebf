using Microsoft.Extensions.Logging;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Logging;

namespace Vmm.Daemon.Tests;

/// <summary>The host fails a disk: an event and a line in the log name disk and file, as the daemon knows them.</summary>
public sealed class DiskErrorTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task An_event_and_a_log_line_name_disk_and_host_path()
    {
        string log = "";
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(folder =>
            new DaemonOptions { Log = new LogOptions { Level = LogLevel.Information, File = log = Path.Combine(folder, "vmmd.log") } });
        (string root, string data) = await CreateAsync(daemon);
        await daemon.Client.DoAsync("web1", "start", s_none);
        FakeWorker worker = daemon.Workers.Alive.Values.Single();
        worker.Fail(new DiskErrorBody("disk1", DiskFault.NoSpace));
        worker.Fail(new DiskErrorBody("disk0", DiskFault.IoError));
        worker.Fail(new DiskErrorBody("disk7", DiskFault.IoError)); // it has none
        Assert.Equal(
            [$"disk1 ({data}): no space left on the host's file system; the guest gets I/O errors",
                $"disk0 ({root}): I/O errors of the host; the guest gets I/O errors"],
            await ErrorsAsync(daemon));
        string text = await ReadAsync(log);
        Assert.Contains($"disk1 of web1 ({data}) fails: no space left on the host's file system", text, StringComparison.Ordinal);
        Assert.Contains($"disk0 of web1 ({root}) fails: I/O errors of the host", text, StringComparison.Ordinal);
        Assert.DoesNotContain("disk7", text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_disk_that_was_plugged_in_is_named_by_its_file_also_by_the_next_daemon()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        (_, string data) = await CreateAsync(daemon);
        await daemon.Client.DoAsync("web1", "start", s_none);
        string path = Path.Combine(daemon.Folder, "late.img");
        await File.WriteAllBytesAsync(path, new byte[4096], s_none);
        await daemon.Client.AttachAsync("web1", "disks", $"path: {path}\n", stay: true, s_none);
        FakeWorker worker = daemon.Workers.Alive.Values.Single();
        worker.Fail(new DiskErrorBody("disk2", DiskFault.NoSpace));
        Assert.Contains($"disk2 ({path}):", Assert.Single(await ErrorsAsync(daemon)), StringComparison.Ordinal);
        worker.Eject("disk0");
        worker.Fail(new DiskErrorBody("disk0", DiskFault.NoSpace)); // gone
        Assert.Single(await ErrorsAsync(daemon));
        await daemon.RestartAsync();
        daemon.Workers.Alive.Values.Single().Fail(new DiskErrorBody("disk1", DiskFault.NoSpace));
        Assert.Contains($"disk1 ({data}):", (await ErrorsAsync(daemon))[^1], StringComparison.Ordinal);
        daemon.Workers.Alive.Values.Single().Fail(new DiskErrorBody("disk2", DiskFault.NoSpace));
        Assert.Contains($"disk2 ({path}):", (await ErrorsAsync(daemon))[^1], StringComparison.Ordinal);
    }

    private static async Task<(string Root, string Data)> CreateAsync(DaemonFixture daemon)
    {
        string root = Path.Combine(daemon.Folder, "root.img"), data = Path.Combine(daemon.Folder, "data.img");
        await File.WriteAllBytesAsync(root, new byte[4096], s_none);
        await File.WriteAllBytesAsync(data, new byte[4096], s_none);
        await daemon.CreateAsync("web1", $"disks:\n- path: {root}\n- path: {data}\n");
        return (root, data);
    }

    private static async Task<List<string>> ErrorsAsync(DaemonFixture daemon) =>
        [.. (await daemon.Client.EventsOfAsync("web1", s_none)).Events.Where(e => e.Kind is "disk-error").Select(e => e.Message!)];

    private static async Task<string> ReadAsync(string path)
    {
        await using FileStream file = new(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using StreamReader reader = new(file);
        return await reader.ReadToEndAsync(s_none);
    }
}
