using System.Diagnostics;
using System.Security.Cryptography;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Images;
using Vmm.Daemon.Vms;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>Images that the daemon keeps: what is taken in, what is refused, and that there is a whole image or nothing.</summary>
public sealed class ImageTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Theory]
    [InlineData("raw", "")]
    [InlineData("qcow2", "")]
    [InlineData("raw", ".xz")]
    [InlineData("qcow2", ".gz")]
    [InlineData("raw", ".zst")]
    [InlineData("qcow2", ".bz2")]
    public async Task A_file_becomes_an_image_of_the_same_bytes(string format, string packing)
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        string plain = MakeDisk(daemon.Folder, format), source = Pack(plain, packing);
        JobInfo job = await daemon.EndAsync(await daemon.Client.ImportImageAsync(new ImageRequest("base", source), s_none));
        Assert.True(job.State == JobState.Done, job.Error?.Detail);
        ImageInfo image = await daemon.Client.ImageAsync("base", s_none);
        Assert.Equal((format, 2L << 20), (image.Format, image.SizeBytes));
        Assert.Equal(Sum(source), image.SourceSha256);
        Assert.Equal(Sum(plain), image.Sha256);
        Assert.Equal(Sum(plain), Sum(image.Path));
        Assert.Equal(UnixFileMode.UserRead, File.GetUnixFileMode(image.Path));
        Assert.Empty(image.UsedBy);
        Assert.Equal("base", Assert.Single((await daemon.Client.ImagesAsync(s_none)).Images).Name);

        // A copy in the other format is the same disk; then the image can go.
        string other = format is "raw" ? "qcow2" : "raw", copy = Path.Combine(daemon.Folder, "copy");
        job = await daemon.EndAsync(await daemon.Client.ExportImageAsync("base", new ImageExportRequest(copy, other), s_none));
        Assert.True(job.State == JobState.Done, job.Error?.Detail);
        Run("qemu-img", "compare", "-q", "-f", other, "-F", format, copy, plain);
        await daemon.Client.DeleteImageAsync("base", s_none);
        Assert.Empty(Directory.EnumerateFileSystemEntries(daemon.Options.LibraryFolder));
        Assert.Equal("image-not-found", (await DaemonFixture.RefusedAsync(() => daemon.Client.ImageAsync("base", s_none))).Code);
    }

    [Fact]
    public async Task What_is_no_image_to_stand_on_is_refused_by_what_it_is_and_leaves_nothing()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        string At(string name) => Path.Combine(daemon.Folder, name);
        MakeDisk(daemon.Folder, "qcow2");
        Run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "disk.qcow2", At("over.qcow2"));
        Run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=data,data_file_raw=on", At("external.qcow2"), "1M");
        Run("qemu-img", "create", "-q", "-f", "qcow2", At("absurd.qcow2"), "65T");
        Run("qemu-img", "create", "-q", "-f", "vmdk", At("a.vmdk"), "1M");
        Run("qemu-img", "create", "-q", "-f", "vhdx", At("a.vhdx"), "1M");
        File.WriteAllBytes(At("odd.img"), new byte[1000]);
        File.WriteAllBytes(At("empty.img"), []);
        File.Copy(Pack(At("disk.qcow2"), ".xz"), At("named.img"));
        File.WriteAllBytes(At("torn.xz"), File.ReadAllBytes(At("named.img"))[..^200]);
        File.WriteAllText(At("no.gz"), "not packed");
        File.WriteAllText(At("no.zst"), "not packed");
        byte[] damaged = File.ReadAllBytes(At("disk.qcow2"));
        damaged.AsSpan(1 << 16, 8).Fill(0x7F); // the refcount table
        File.WriteAllBytes(At("damaged.qcow2"), damaged);
        foreach ((string file, string why) in new[]
        {
            ("over.qcow2", "stands on another file, \"disk.qcow2\""), ("external.qcow2", "external data file"),
            ("absurd.qcow2", "at most 64 TiB"), ("a.vmdk", "VMware disk"), ("a.vhdx", "Hyper-V disk"), ("odd.img", "whole sectors"),
            ("empty.img", "is empty"), ("named.img", "ends in .xz"), ("torn.xz", "xz:"), ("no.gz", ""), ("no.zst", ""),
            ("damaged.qcow2", ""),
        })
        {
            JobInfo job = await daemon.EndAsync(await daemon.Client.ImportImageAsync(new ImageRequest("x", At(file)), s_none));
            Assert.True(job is { State: JobState.Failed, Error.Status: 422, Error.Code: "image-refused" }, $"{file}: {job.Error}");
            Assert.StartsWith(At(file) + " ", job.Error!.Detail, StringComparison.Ordinal);
            Assert.Contains(why, job.Error.Detail, StringComparison.Ordinal);
            Assert.DoesNotContain(daemon.Options.LibraryFolder, job.Error.Detail, StringComparison.Ordinal);
            Assert.Empty(Directory.EnumerateFileSystemEntries(daemon.Options.LibraryFolder));
        }

        foreach (ImageRequest bad in new[]
        {
            new ImageRequest("x", "/etc/passwd"), new ImageRequest("x", "disk.qcow2"), new ImageRequest("x", At("none")),
            new ImageRequest(".x", At("disk.qcow2")), new ImageRequest("a/b", At("disk.qcow2")), new ImageRequest("", At("disk.qcow2")),
            new ImageRequest("x", At("disk.qcow2"), "vmdk"),
        })
        {
            Assert.Equal(422, (await DaemonFixture.RefusedAsync(() => daemon.Client.ImportImageAsync(bad, s_none))).Status);
        }
    }

    [Fact]
    public async Task A_format_that_is_said_goes_over_what_the_content_looks_like()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        string disk = MakeDisk(daemon.Folder, "qcow2");
        await daemon.EndAsync(await daemon.Client.ImportImageAsync(new ImageRequest("x", disk, "raw"), s_none));
        ImageInfo image = await daemon.Client.ImageAsync("x", s_none);
        Assert.Equal(("raw", new FileInfo(disk).Length), (image.Format, image.SizeBytes));
        Assert.Equal("name-taken", (await DaemonFixture.RefusedAsync(
            () => daemon.Client.ImportImageAsync(new ImageRequest("x", disk), s_none))).Code);
    }

    /// <summary>Zeros unpack from next to nothing, and would take no space: they are counted all the same.</summary>
    [Theory]
    [InlineData(".gz")]
    [InlineData(".xz")]
    public async Task What_unpacks_to_more_than_is_free_ends_there(string packing)
    {
        string folder = Directory.CreateTempSubdirectory("vmm-bomb-").FullName, mount = Path.Combine(folder, "small");
        Directory.CreateDirectory(mount);
        Run("mount", "-t", "tmpfs", "-o", "size=280m", "none", mount);
        try
        {
            string bomb = Path.Combine(folder, "bomb");
            using (FileStream zeros = File.Create(bomb))
            {
                zeros.SetLength(64 << 20);
            }

            string packed = Pack(bomb, packing);
            ImageLibrary library = new(Path.Combine(mount, "library"));
            using FileDescriptorHandle file = BlockFile.Open(packed, writable: false, direct: false);
            ImageImport import = new(library, new ImageRequest("x", packed), file);
            ApiException refused = Assert.Throws<ApiException>(() => import.Run(_ => { }, s_none));
            Assert.Equal((507, "no-space"), (refused.Problem.Status, refused.Problem.Code));
            Assert.Contains("unpacks to more than", refused.Problem.Detail, StringComparison.Ordinal);
            Assert.Empty(Directory.EnumerateFileSystemEntries(Path.Combine(mount, "library")));
            await Task.CompletedTask;
        }
        finally
        {
            Run("umount", mount);
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public async Task An_import_that_is_cancelled_or_whose_daemon_dies_leaves_nothing()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        string big = Path.Combine(daemon.Folder, "big.img");
        using (FileStream file = File.Create(big))
        {
            file.SetLength(64L << 30); // zeros: no space, and minutes to read
        }

        JobInfo job = await daemon.Client.ImportImageAsync(new ImageRequest("x", big), s_none);
        await DaemonFixture.UntilAsync(() => Directory.Exists(Path.Combine(daemon.Options.LibraryFolder, ".x.part")));
        Assert.Equal(JobState.Cancelled, (await daemon.Client.CancelJobAsync(job.Id, s_none)).State);
        Assert.Empty(Directory.EnumerateFileSystemEntries(daemon.Options.LibraryFolder));

        // As a daemon that was killed leaves it.
        await daemon.StopDaemonAsync();
        Directory.CreateDirectory(Path.Combine(daemon.Options.LibraryFolder, ".y.part"));
        Directory.CreateDirectory(Path.Combine(daemon.Options.LibraryFolder, ".z.gone"));
        await daemon.StartDaemonAsync();
        Assert.Empty((await daemon.Client.ImagesAsync(s_none)).Images);
        Assert.Empty(Directory.EnumerateFileSystemEntries(daemon.Options.LibraryFolder));
    }

    [Fact]
    public async Task Nothing_writes_an_image_and_nothing_deletes_one_that_a_disk_stands_on()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.EndAsync(await daemon.Client.ImportImageAsync(
            new ImageRequest("base", MakeDisk(daemon.Folder, "qcow2")), s_none));
        string image = (await daemon.Client.ImageAsync("base", s_none)).Path, over = Path.Combine(daemon.Folder, "over.qcow2");
        Storage.StorageFolders rule = daemon.Options.StorageRule;
        string link = Path.Combine(daemon.Folder, "link");
        File.CreateSymbolicLink(link, Path.GetRelativePath(daemon.Folder, image));
        foreach (string path in new[] { image, link })
        {
            rule.Open(path, writable: false).Dispose();
            Assert.Contains("which no VM writes",
                Assert.Throws<Storage.StorageException>(() => rule.Open(path, writable: true)).Message, StringComparison.Ordinal);
        }

        Assert.Throws<Storage.StorageException>(() => rule.HoldFolder(Path.GetDirectoryName(image)!));
        Run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, over);
        await daemon.CreateAsync("web1", $"disks:\n  - path: {over}\n    format: qcow2\n");
        Problem refused = await DaemonFixture.RefusedAsync(() => daemon.Client.DeleteImageAsync("base", s_none));
        Assert.Equal((409, "image-in-use"), (refused.Status, refused.Code));
        Assert.Contains("web1", refused.Detail, StringComparison.Ordinal);
        Assert.Equal(["web1"], (await daemon.Client.ImageAsync("base", s_none)).UsedBy);
        await daemon.Client.DeleteAsync("web1", s_none);
        await daemon.Client.DeleteImageAsync("base", s_none);
        Assert.False(File.Exists(image));
    }

    /// <summary>What begins a file may be anything: it is one of three things, and never another error.</summary>
    [Fact]
    public void Any_first_bytes_are_a_format_or_refused()
    {
        Random random = new(42);
        byte[][] magics = ["QFI\xfb"u8.ToArray(), "KDMV"u8.ToArray(), "vhdxfile"u8.ToArray(), [0x1F, 0x8B], [0x51, 0x46, 0x49, 0xFB]];
        for (int i = 0; i < 20_000; i++)
        {
            byte[] start = new byte[random.Next(ImageContent.StartBytes + 1)];
            random.NextBytes(start);
            byte[] magic = magics[random.Next(magics.Length)];
            magic.AsSpan(0, Math.Min(random.Next(magic.Length + 1), start.Length)).CopyTo(start);
            try
            {
                string format = ImageContent.Probe(start);
                Assert.Equal(start.AsSpan().StartsWith((byte[])[0x51, 0x46, 0x49, 0xFB]) ? "qcow2" : "raw", format);
            }
            catch (InvalidDataException)
            {
                Assert.True(start.Length > 1);
            }
        }
    }

    [Theory]
    [InlineData("raw")]
    [InlineData("qcow2")]
    public async Task A_disk_over_an_image_is_the_vms_own_and_goes_with_it(string format)
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        string plain = MakeDisk(daemon.Folder, format);
        await daemon.EndAsync(await daemon.Client.ImportImageAsync(new ImageRequest("base", plain), s_none));
        const string Disks = "disks:\n  # the root\n  - image: base\n    serial: root\n  - {image: base, size: 20GiB}\n";
        VmInfo vm = await daemon.CreateAsync("web1", Disks);
        string folder = Path.Combine(daemon.Options.MachinesFolder, "web1");
        string root = Path.Combine(folder, "disk0.qcow2"), second = Path.Combine(folder, "disk1.qcow2");
        VmSpec spec = SpecReader.Read(await daemon.Client.SpecAsync("web1", s_none), "web1", daemon.Folder);
        Assert.Equal([(root, DiskFormat.Qcow2, "root"), (second, DiskFormat.Qcow2, null)],
            spec.Disks.Select(d => (d.Path, d.Format, d.Serial)));
        Run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", format, root, plain);
        Run("qemu-img", "check", "-q", second);
        Assert.Equal(20ul << 30, Vmm.Storage.Qcow2.Tools.ImageChainInfo.Read(second, "qcow2")[0].Size);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(root));
        Assert.Equal(["web1"], (await daemon.Client.ImageAsync("base", s_none)).UsedBy);

        // The same again is answered with the VM that is there; what changes nothing writes nothing.
        DateTime written = File.GetLastWriteTimeUtc(root);
        Assert.Equal(vm.Id, (await daemon.CreateAsync("web1", Disks)).Id);
        Assert.Equal(written, File.GetLastWriteTimeUtc(root));
        Assert.Equal("image-in-use", (await DaemonFixture.RefusedAsync(() => daemon.Client.DeleteImageAsync("base", s_none))).Code);

        // A snapshot lies beside it, and goes with it, too; another VM over it keeps it.
        File.Copy(root, Path.Combine(folder, "disk0.later.qcow2"));
        await daemon.CreateAsync("web2", $"disks:\n  - {{path: {root}, format: qcow2, readOnly: true}}\n");
        Problem held = await DaemonFixture.RefusedAsync(() => daemon.Client.DeleteAsync("web1", s_none));
        Assert.Equal((409, "disk-in-use"), (held.Status, held.Code));
        Assert.Contains("web2", held.Detail, StringComparison.Ordinal);
        Assert.True(File.Exists(root));
        await daemon.Client.DeleteAsync("web2", s_none);
        await daemon.Client.DeleteAsync("web1", s_none);
        Assert.Empty(Directory.EnumerateFileSystemEntries(daemon.Options.MachinesFolder));
        await daemon.Client.DeleteImageAsync("base", s_none);
    }

    [Fact]
    public async Task A_disk_over_an_image_that_cannot_be_is_named_and_leaves_nothing()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.EndAsync(await daemon.Client.ImportImageAsync(
            new ImageRequest("base", MakeDisk(daemon.Folder, "raw")), s_none));
        foreach ((string disks, string field, string why) in new[]
        {
            ("- image: none", "disks[0].image", "there is no image none"), ("- {image: base, size: 1MiB}", "disks[0].size", "not smaller"),
            ("- {image: base, size: 65TiB}", "disks[0].size", "64 TiB"), ("- {image: ../x}", "disks[0].image", "is no name"),
            ("- {image: base, path: a}", "disks[0].image", "in place of path"),
            ("- {path: kernel, size: 1GiB}", "disks[0].size", "over an image"),
        })
        {
            Problem problem = await DaemonFixture.RefusedAsync(() => daemon.CreateAsync("x", "disks:\n  " + disks + "\n"));
            Assert.True(problem is { Status: 422, Code: "spec-invalid" }, problem.Detail);
            Assert.Contains(problem.Errors!, e => e.Field == field && e.Message.Contains(why, StringComparison.Ordinal));
        }

        Assert.Contains("a line each", (await DaemonFixture.RefusedAsync(
            () => daemon.CreateAsync("x", "disks: [{image: base}]\n"))).Detail, StringComparison.Ordinal);
        await daemon.CreateAsync("web1");
        Assert.Equal(422, (await DaemonFixture.RefusedAsync(() => daemon.Client.ReplaceAsync(
            "web1", daemon.Yaml("web1", "disks:\n  - image: base\n"), daemon.Folder, null, s_none))).Status);
        Directory.CreateDirectory(Path.Combine(daemon.Options.MachinesFolder, "old", "disk0.qcow2"));
        Assert.Equal("name-taken", (await DaemonFixture.RefusedAsync(
            () => daemon.CreateAsync("old", "disks:\n  - image: base\n"))).Code);
        Assert.Equal(["old"], Directory.EnumerateFileSystemEntries(daemon.Options.MachinesFolder).Select(Path.GetFileName));
    }

    /// <summary>Killed between inventory and folder, either way round: the inventory decides.</summary>
    [Fact]
    public async Task After_a_kill_disks_are_there_for_a_vm_that_is_and_gone_for_one_that_is_not()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.EndAsync(await daemon.Client.ImportImageAsync(
            new ImageRequest("base", MakeDisk(daemon.Folder, "raw")), s_none));
        await daemon.CreateAsync("web1", "disks:\n  - image: base\n");
        string machines = daemon.Options.MachinesFolder;
        await daemon.StopDaemonAsync();
        Directory.Move(Path.Combine(machines, "web1"), Path.Combine(machines, ".web1.pending"));
        Directory.CreateDirectory(Path.Combine(machines, ".web2.pending"));
        Directory.CreateDirectory(Path.Combine(machines, "web3"));
        await daemon.StartDaemonAsync();
        Assert.Equal(["web1", "web3"], Directory.EnumerateFileSystemEntries(machines).Select(Path.GetFileName).Order());
        Assert.True(File.Exists(Path.Combine(machines, "web1", "disk0.qcow2")));
    }

    internal static string MakeDisk(string folder, string format)
    {
        string raw = Path.Combine(folder, "disk.raw"), path = Path.Combine(folder, "disk." + format);
        byte[] bytes = new byte[2 << 20];
        new Random(7).NextBytes(bytes.AsSpan(300_000, 200_000));
        File.WriteAllBytes(raw, bytes);
        if (format is not "raw")
        {
            Run("qemu-img", "convert", "-q", "-f", "raw", "-O", format, raw, path);
        }

        return path;
    }

    internal static void Run(string program, params string[] arguments)
    {
        ProcessStartInfo start = new(program, arguments) { UseShellExecute = false, RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        string error = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program} {string.Join(' ', arguments)}: {error}");
    }

    private static string Pack(string path, string packing)
    {
        switch (packing)
        {
            case ".xz": Run("xz", "-k", "-1", path); break;
            case ".gz": Run("gzip", "-k", "-1", path); break;
            case ".zst": Run("zstd", "-q", "-k", "-1", path); break;
            case ".bz2": Run("bzip2", "-k", "-1", path); break;
        }

        return path + packing;
    }

    private static string Sum(string path) => Convert.ToHexStringLower(SHA256.HashData(File.ReadAllBytes(path)));
}
