using System.Diagnostics;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.Memory;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>
/// What a spec may name: files beneath the folders that an administrator allowed, and nothing a link, an owner or a device makes of them.
/// </summary>
public sealed class StorageTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-st-").FullName;

    public StorageTests()
    {
        Directory.CreateDirectory(At("allowed"));
        Directory.CreateDirectory(At("outside"));
        Make("allowed/disk");
        Make("outside/secret");
    }

    private StorageFolders Storage => new([At("allowed")], []);

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_file_in_an_allowed_folder_is_opened()
    {
        using FileDescriptorHandle disk = Storage.Open(At("allowed/disk"), writable: true);
        Assert.Equal(4096u, BlockFile.Inspect(disk).Size);
        Directory.CreateDirectory(At("allowed/deep"));
        File.CreateSymbolicLink(At("allowed/deep/link"), "../disk");
        using FileDescriptorHandle inside = Storage.Open(At("allowed/deep/link"), writable: false); // a link that stays inside is one
        Assert.Equal(4096u, BlockFile.Inspect(inside).Size);
    }

    [Theory]
    [InlineData("outside/secret", "is not in a storage folder")]
    [InlineData("allowed/../outside/secret", "is not in a storage folder")]
    [InlineData("allowedx/secret", "is not in a storage folder")]
    [InlineData("allowed/absolute", "leads out of the storage folder")]
    [InlineData("allowed/relative", "leads out of the storage folder")]
    [InlineData("allowed/folder/secret", "leads out of the storage folder")]
    [InlineData("allowed/none", "does not exist")]
    [InlineData("allowed/disk/none", "does not exist")]
    [InlineData("allowed/hard", "hard links")]
    [InlineData("allowed/fifo", "is neither a file nor a block device")]
    [InlineData("allowed/sub", "is a directory")]
    public void Everything_else_is_refused_by_name_and_rule(string path, string rule)
    {
        File.CreateSymbolicLink(At("allowed/absolute"), At("outside/secret"));
        File.CreateSymbolicLink(At("allowed/relative"), "../outside/secret");
        Directory.CreateSymbolicLink(At("allowed/folder"), At("outside"));
        Run("ln", At("outside/secret"), At("allowed/hard"));
        Run("mkfifo", At("allowed/fifo"));
        Directory.CreateDirectory(At("allowed/sub"));
        string asked = Path.Combine(_folder, path);
        StorageException refused = Assert.Throws<StorageException>(() => Storage.Open(asked, writable: false));
        Assert.Contains(rule, refused.Message, StringComparison.Ordinal);
        Assert.StartsWith(asked, refused.Message, StringComparison.Ordinal);
        Assert.Equal(refused.Message, Storage.Problem(asked));
    }

    [Fact]
    public void The_links_of_proc_lead_nowhere()
    {
        StorageFolders all = new(["/"], []);
        Assert.Throws<StorageException>(() => all.Open("/proc/self/root/etc/passwd", writable: false));
        Assert.Throws<StorageException>(() => all.Open("/proc/self/exe", writable: false));
    }

    [Fact]
    public void Without_folders_nothing_is_opened_and_the_setting_is_named() =>
        Assert.Contains(
            "--storage",
            Assert.Throws<StorageException>(() => StorageFolders.None.Open(At("allowed/disk"), writable: false)).Message,
            StringComparison.Ordinal);

    [Fact]
    public void A_file_of_another_user_is_refused()
    {
        Assert.True(Environment.IsPrivilegedProcess, "the suite runs as root");
        Run("chown", "12345", At("allowed/disk"));
        Assert.Contains("uid 12345", Storage.Problem(At("allowed/disk")), StringComparison.Ordinal);
    }

    [Fact]
    public void What_was_looked_at_is_what_is_opened_whatever_its_name_names_by_then()
    {
        using FolderFile found = FolderFile.Find(At("allowed"), "disk", confined: true);
        File.Delete(At("allowed/disk"));
        File.CreateSymbolicLink(At("allowed/disk"), At("outside/secret"));
        using FileDescriptorHandle opened = found.Open(writable: false, exclusive: false);
        Assert.True(FileFacts.TryOf(At("outside/secret"), out FileFacts secret));
        Assert.NotEqual(secret.Inode, found.Facts.Inode);
        Assert.Equal(4096u, BlockFile.Inspect(opened).Size);
    }

    [Fact]
    public void A_worker_is_handed_nothing_from_outside()
    {
        Make("allowed/kernel");
        VmSpec spec = new()
        {
            Memory = ByteSize.MiB(64),
            Boot = new BootSpec { Kernel = At("allowed/kernel") },
            Disks = [new DiskSpec { Path = At("allowed/disk") }]
        };
        WorkerResources.Open(spec, Storage).Dispose();
        File.Delete(At("allowed/disk"));
        File.CreateSymbolicLink(At("allowed/disk"), At("outside/secret"));
        Assert.Contains(
            "leads out", Assert.Throws<WorkerException>(() => WorkerResources.Open(spec, Storage)).Message, StringComparison.Ordinal);
        VmSpec kernel = spec with { Disks = [], Boot = new BootSpec { Kernel = At("outside/secret") } };
        Assert.Contains(
            "storage folder",
            Assert.Throws<WorkerException>(() => WorkerResources.Open(kernel, Storage)).Message,
            StringComparison.Ordinal);
        VmSpec initrd = spec with { Disks = [], Boot = new BootSpec { Kernel = At("allowed/kernel"), Initrd = At("outside/secret") } };
        Assert.Contains(
            "storage folder",
            Assert.Throws<WorkerException>(() => WorkerResources.Open(initrd, Storage)).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_spec_that_names_a_file_outside_is_refused_when_it_is_stored_and_tells_nothing_of_it()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync(_ => new DaemonOptions { Storage = [At("allowed")] });
        foreach (string path in new[] { At("outside/secret"), At("outside/none"), "/etc" })
        {
            Problem problem = await DaemonFixture.RefusedAsync(
                () => daemon.Client.CreateAsync($"name: a\nboot:\n  kernel: {path}\n", "", CancellationToken.None));
            Assert.Equal("spec-invalid", problem.Code);
            Assert.Contains($"{path} is not in a storage folder", problem.Detail, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void The_settings_name_the_folders()
    {
        DaemonOptions options = DaemonConfig.Apply(
            new DaemonOptions(), "f", "storage:\n  - /srv/a\n  - /srv/b\nblockDevices:\n  - /dev/mapper\n", out _)!;
        Assert.Equal(["/srv/a", "/srv/b"], options.Storage);
        Assert.Equal(["/dev/mapper"], options.BlockDevices);
        Assert.Equal(["/a", "/b"], DaemonOptions.Parse(["--storage", "/a", "--storage", "/b"], out _)!.Storage);
        Assert.Null(DaemonConfig.Apply(new DaemonOptions(), "f", "storage:\n  - srv\n", out string problem));
        Assert.Contains("whole paths", problem, StringComparison.Ordinal);
    }

    private string At(string path) => Path.Combine(_folder, path);

    private void Make(string path) => File.WriteAllBytes(At(path), new byte[4096]);

    private static void Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(program, arguments);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }
}
