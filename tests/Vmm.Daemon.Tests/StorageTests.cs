using System.Diagnostics;
using Vmm.Contracts.Control;
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
    [InlineData("allowed/sub", null)]
    [InlineData("allowed/inside", null)]
    [InlineData("allowed", "is in no storage folder")]
    [InlineData("outside", "is in no storage folder")]
    [InlineData("allowed/sub/../../outside", "is in no storage folder")]
    [InlineData("allowed/out", "leads out of the storage folder")]
    [InlineData("allowed/sub/top", "itself: name a folder below it")]
    [InlineData("allowed/disk", "is no folder")]
    [InlineData("allowed/none", "does not exist")]
    public void A_folder_below_an_allowed_one_is_shared_and_nothing_that_a_link_makes_of_it(string path, string? rule)
    {
        Directory.CreateDirectory(At("allowed/sub"));
        Directory.CreateSymbolicLink(At("allowed/inside"), "sub");
        Directory.CreateSymbolicLink(At("allowed/out"), At("outside"));
        Directory.CreateSymbolicLink(At("allowed/sub/top"), "..");
        string? problem = Storage.Problem(new ShareSpec { Path = At(path) });
        Assert.Equal(rule is null, problem is null);
        Assert.Contains(rule ?? "", problem ?? "", StringComparison.Ordinal);
    }

    [Fact]
    public void A_swap_file_is_made_in_an_allowed_folder_or_where_the_daemon_keeps_its_own_and_leaves_no_name()
    {
        DiskAccess access = new(Storage) { SwapFolder = At("swap") };
        access.OpenSwap(new PagingSpec(), _ => { }).Dispose();
        access.OpenSwap(new PagingSpec { Swap = At("allowed") }, _ => { }).Dispose();
        Assert.Empty(Directory.GetFileSystemEntries(At("swap")));
        Assert.Equal([At("allowed/disk")], Directory.GetFileSystemEntries(At("allowed")));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, File.GetUnixFileMode(At("swap")));
        StorageException refused = Assert.Throws<StorageException>(
            () => access.OpenSwap(new PagingSpec { Swap = At("outside") }, _ => { }));
        Assert.Contains("is in no storage folder", refused.Message, StringComparison.Ordinal);
        Assert.Contains("is in no storage folder", Storage.FolderProblem(At("outside")), StringComparison.Ordinal);
        Assert.Null(Storage.FolderProblem(At("allowed")));
    }

    [Fact]
    public void Images_are_shared_read_only()
    {
        StorageFolders storage = new([At("allowed")], []) { ReadOnlyFolders = [At("outside")] };
        Directory.CreateDirectory(At("outside/images"));
        Assert.Contains(
            "share it read-only", storage.Problem(new ShareSpec { Path = At("outside/images") }), StringComparison.Ordinal);
        Assert.Null(storage.Problem(new ShareSpec { Path = At("outside/images"), ReadOnly = true }));
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
        WorkerResources.Open(spec, new DiskAccess(Storage)).Dispose();
        File.Delete(At("allowed/disk"));
        File.CreateSymbolicLink(At("allowed/disk"), At("outside/secret"));
        Assert.Contains(
            "leads out",
            Assert.Throws<WorkerException>(() => WorkerResources.Open(spec, new DiskAccess(Storage))).Message,
            StringComparison.Ordinal);
        VmSpec kernel = spec with { Disks = [], Boot = new BootSpec { Kernel = At("outside/secret") } };
        Assert.Contains(
            "storage folder",
            Assert.Throws<WorkerException>(() => WorkerResources.Open(kernel, new DiskAccess(Storage))).Message,
            StringComparison.Ordinal);
        VmSpec initrd = spec with { Disks = [], Boot = new BootSpec { Kernel = At("allowed/kernel"), Initrd = At("outside/secret") } };
        Assert.Contains(
            "storage folder",
            Assert.Throws<WorkerException>(() => WorkerResources.Open(initrd, new DiskAccess(Storage))).Message,
            StringComparison.Ordinal);
    }

    [Fact]
    public void A_worker_of_a_VM_with_a_resident_limit_gets_the_device_of_faults_and_a_swap_file_and_may_fill_it()
    {
        Make("allowed/kernel");
        VmSpec spec = new()
        {
            Memory = ByteSize.MiB(512),
            Paging = new PagingSpec { Resident = MemoryPortion.OfPercent(25) },
            Boot = new BootSpec { Kernel = At("allowed/kernel") },
        };
        DiskAccess access = new(Storage) { SwapFolder = At("swap") };
        if (!File.Exists(UserfaultDevice.Path))
        {
            WorkerException missing = Assert.Throws<WorkerException>(() => WorkerResources.Open(spec, access));
            Assert.Equal(ControlCodes.HostMismatch, missing.Code);
            return;
        }

        using WorkerResources resources = WorkerResources.Open(spec, access);
        Assert.Equal([ResourceNames.Kernel, ResourceNames.Userfault, ResourceNames.Swap], resources.Names);
        Assert.True(resources.HasPaging);
        Assert.Equal(PagingSpec.SwapLimit(spec).Bytes, resources.LargestFile);
        WorkerException refused = Assert.Throws<WorkerException>(
            () => WorkerResources.Open(spec with { Paging = spec.Paging with { Swap = At("outside") } }, access));
        Assert.Equal(ControlCodes.HostMismatch, refused.Code);
        Assert.Contains("memory.swap: ", refused.Message, StringComparison.Ordinal);
        using WorkerResources usual = WorkerResources.Open(spec with { Paging = null }, access);
        Assert.False(usual.HasPaging);
    }

    [Fact]
    public void The_images_of_a_chain_go_to_the_worker_in_order_with_what_they_are()
    {
        Run("qemu-img", "create", "-q", "-f", "raw", At("allowed/root.img"), "1M");
        Run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "root.img", At("allowed/base.qcow2"));
        Run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", At("allowed/top.qcow2"));
        DiskSpec disk = new() { Path = At("allowed/top.qcow2"), Format = DiskFormat.Qcow2, Cache = DiskCache.Buffered };
        using WorkerResources resources = WorkerResources.Open(disk, new DiskAccess(Storage));
        Assert.Equal(["disk0", "disk0.base1", "disk0.base2"], resources.Names);
        Assert.True(resources.HasImages);
        Assert.True(resources.LargestFile > 64 << 20, "the file of an image grows");
        Assert.Equal(
            [new BackingSpec(At("allowed/base.qcow2"), DiskFormat.Qcow2), new BackingSpec(At("allowed/root.img"), DiskFormat.Raw)],
            resources.WithBacking(0, disk).Backing);
        using WorkerResources raw = WorkerResources.Open(new DiskSpec { Path = At("allowed/disk") }, new DiskAccess(Storage));
        Assert.False(raw.HasImages);
    }

    /// <summary>What an image says is below it is somebody's word: the rule is the same as for what a spec names.</summary>
    [Theory]
    [InlineData("../outside/secret", "is not in a storage folder")]
    [InlineData("absolute", "leads out of the storage folder")]
    [InlineData("folder/secret", "leads out of the storage folder")]
    [InlineData("hard", "hard links")]
    [InlineData("fifo", "is neither a file nor a block device")]
    [InlineData("/etc/shadow", "is not in a storage folder")]
    [InlineData("/proc/self/root/etc/shadow", "is not in a storage folder")]
    [InlineData("none", "does not exist")]
    public void An_image_gets_nothing_below_it_that_a_spec_could_not_name(string backing, string rule)
    {
        File.CreateSymbolicLink(At("allowed/absolute"), At("outside/secret"));
        Directory.CreateSymbolicLink(At("allowed/folder"), At("outside"));
        Run("ln", At("outside/secret"), At("allowed/hard"));
        Run("mkfifo", At("allowed/fifo"));
        Run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", backing, "-u", At("allowed/top.qcow2"), "1M");
        DiskSpec disk = new() { Path = At("allowed/top.qcow2"), Format = DiskFormat.Qcow2 };
        WorkerException refused = Assert.Throws<WorkerException>(() => WorkerResources.Open(disk, new DiskAccess(Storage)));
        Assert.Equal(ControlCodes.DiskOpenFailed, refused.Code);
        Assert.Contains(rule, refused.Message, StringComparison.Ordinal);
        Assert.Contains($"(it is the backing file of {At("allowed/top.qcow2")})", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_base_that_is_written_is_refused_with_the_name_of_the_vm_that_has_it()
    {
        Run("qemu-img", "create", "-q", "-f", "qcow2", At("allowed/base.qcow2"), "1M");
        Run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", At("allowed/top.qcow2"));
        DiskAccess access = new(Storage) { VmOf = process => process == Environment.ProcessId ? "web1" : null };
        DiskSpec top = new() { Path = At("allowed/top.qcow2"), Format = DiskFormat.Qcow2 };
        DiskSpec writer = top with { Path = At("allowed/base.qcow2") };
        using (WorkerResources.Open(top, access))
        using (WorkerResources.Open(top with { Path = Overlay("other.qcow2") }, access)) // two VMs over one base
        {
            WorkerException refused = Assert.Throws<WorkerException>(() => WorkerResources.Open(writer, access));
            Assert.Equal(ControlCodes.DiskInUse, refused.Code);
            Assert.Contains("base.qcow2 is in use by VM web1 (process ", refused.Message, StringComparison.Ordinal);
        }

        using (WorkerResources.Open(writer, access))
        {
            string said = Assert.Throws<WorkerException>(() => WorkerResources.Open(top, access)).Message;
            Assert.Contains("base.qcow2 is being written by VM web1 (process ", said, StringComparison.Ordinal);
            Assert.Contains("top.qcow2)", said, StringComparison.Ordinal);
        }

        WorkerResources.Open(top, access).Dispose();
    }

    [Fact]
    public void A_raw_disk_that_begins_as_an_image_is_remarked_on_and_stays_raw()
    {
        Run("qemu-img", "create", "-q", "-f", "qcow2", At("allowed/guest"), "1M");
        using (FileStream file = File.OpenWrite(At("allowed/guest")))
        {
            file.SetLength(1 << 20); // whole sectors, as those of a raw disk are
        }

        List<(string, string)> told = [];
        DiskAccess access = new(Storage) { Remarked = (vm, remark) => told.Add((vm, remark)) };
        using WorkerResources resources = WorkerResources.Open(new DiskSpec { Path = At("allowed/guest") }, access);
        resources.TellRemarks("id");
        (string id, string said) = Assert.Single(told);
        Assert.Equal("id", id);
        Assert.Contains("format: qcow2", said, StringComparison.Ordinal);
        Assert.False(resources.HasImages);
        using WorkerResources plain = WorkerResources.Open(new DiskSpec { Path = At("allowed/disk") }, access);
        plain.TellRemarks("id");
        Assert.Single(told);
    }

    [Fact]
    public async Task A_process_is_known_by_the_vm_that_it_runs_and_a_remark_reaches_who_asks_for_the_vm()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "");
        VmInfo started = await daemon.Client.DoAsync("web1", "start", CancellationToken.None);
        Assert.Equal("web1", daemon.Host.Vms.NameOf(started.WorkerProcessId!.Value));
        Assert.Null(daemon.Host.Vms.NameOf(started.WorkerProcessId.Value + 1));
        daemon.Host.Vms.Remark(daemon.Host.Vms.Get("web1").Record.Id, "looks odd");
        daemon.Host.Vms.Remark(Guid.NewGuid().ToString(), "of no vm");
        DaemonEvent told = Assert.Single(
            (await daemon.Client.EventsOfAsync("web1", CancellationToken.None)).Events, e => e.Kind is "disk-remark");
        Assert.Equal("looks odd", told.Message);
        await daemon.Client.DoAsync("web1", "stop", CancellationToken.None);
        Assert.Null(daemon.Host.Vms.NameOf(started.WorkerProcessId.Value));
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

    private string Overlay(string name)
    {
        Run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", At("allowed/" + name));
        return At("allowed/" + name);
    }

    private void Make(string path) => File.WriteAllBytes(At(path), new byte[4096]);

    private static void Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(program, arguments);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }
}
