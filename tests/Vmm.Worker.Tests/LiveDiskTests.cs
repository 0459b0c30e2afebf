using System.Diagnostics;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;
using Vmm.Storage.Tests.Qcow2;
using Vmm.Testing;
using static Vmm.Worker.Tests.LiveDaemon;

namespace Vmm.Worker.Tests;

/// <summary>
/// What is done to disks while a guest writes them, all the way: by REST, through vmmd, in a confined worker, on a real KVM. The guest
/// verifies what it reads, qemu-img what is left.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class LiveDiskTests
{
    private const string Works = "requests=0"; // until it is told

    [KvmFact]
    public async Task Snapshots_of_a_vm_that_runs_is_paused_and_is_off()
    {
        await using LiveDaemon daemon = await StartAsync();
        QemuImg.Run("create", "-f", "raw", daemon.In("disk.raw"), "24M");
        LiveVm vm = await daemon.RunAsync("blk", Works, "disks:\n- {path: disk.raw, queues: 2}\nvsock: {cid: 7, path: v.sock}\n");
        Assert.DoesNotContain((await vm.ShowAsync()).Confinement!.Missing, m => m.StartsWith("seccomp", StringComparison.Ordinal));
        await vm.WritesAsync();
        await SnapshotAsync("one");
        byte[] raw = await File.ReadAllBytesAsync(daemon.In("disk.raw"));
        await vm.WritesAsync();
        await daemon.Client.DoAsync(vm.Name, "pause", Soon);
        await SnapshotAsync("two");
        Assert.Equal(VmState.Paused, (await vm.ShowAsync()).State);
        await daemon.Client.DoAsync(vm.Name, "resume", Soon);
        await vm.WritesAsync();
        // Nobody in this guest can freeze: the snapshot is as after a power cut, and says so; one that has to be frozen is refused.
        GuestAgentInfo agent = await daemon.Client.AgentAsync(vm.Name, Soon);
        Assert.False(agent.Answers, agent.ToString());
        await SnapshotAsync("three", quiesce: 1);
        Assert.Contains("not quiesced", Assert.Single(await vm.EventsAsync("guest-quiesce")), StringComparison.Ordinal);
        JobInfo refused = await daemon.EndAsync(
            await daemon.Client.SnapshotAsync(vm.Name, new SnapshotWish("never", QuiesceRequired: true), Soon), JobState.Failed);
        Assert.Equal("not-quiesced", refused.Error!.Code);
        Assert.False(File.Exists(daemon.In("disk.never.qcow2")));
        await vm.WritesAsync();
        await vm.VerifiesAsync();
        await SnapshotAsync("off");
        await vm.StartAsync();
        await vm.WritesAsync();
        await vm.VerifiesAsync();
        Assert.Equal(raw, await File.ReadAllBytesAsync(daemon.In("disk.raw")));
        foreach (string name in (string[])["one", "two", "three", "off"])
        {
            QemuImg.Run("check", "-f", "qcow2", daemon.In($"disk.{name}.qcow2"));
        }

        string chain = QemuImg.Run("info", "--backing-chain", daemon.In("disk.off.qcow2"));
        Assert.Equal(5, chain.Split("virtual size").Length - 1);

        async Task SnapshotAsync(string name, int? quiesce = null) =>
            await daemon.EndAsync(await daemon.Client.SnapshotAsync(vm.Name, new SnapshotWish(name, QuiesceSeconds: quiesce), Soon));
    }

    [KvmFact]
    public async Task A_disk_is_streamed_and_the_images_between_are_let_go()
    {
        await using LiveDaemon daemon = await StartAsync();
        // What the guest does not touch: 20 MiB to 23 MiB, a MiB in each image.
        QemuImg.Run("create", "-f", "raw", daemon.In("root.raw"), "24M");
        Write("root.raw", "raw", "-P 1 20M 3M");
        QemuImg.Run("create", "-f", "qcow2", "-F", "raw", "-b", "root.raw", daemon.In("middle.qcow2"));
        Write("middle.qcow2", "qcow2", "-P 2 21M 2M");
        QemuImg.Run("create", "-f", "qcow2", "-F", "qcow2", "-b", "middle.qcow2", daemon.In("top.qcow2"));
        Write("top.qcow2", "qcow2", "-P 3 22M 1M");
        LiveVm vm = await daemon.RunAsync("blk", Works, "disks: [{path: top.qcow2, format: qcow2, queues: 2}]\n");
        await vm.WritesAsync();
        // Given up first: the chain is what it was.
        JobInfo slow = await daemon.Client.StreamDiskAsync(vm.Name, "disk0", new DiskStreamWish(BytesPerSecond: 1 << 20), Soon);
        await vm.WritesAsync();
        await daemon.Client.CancelJobAsync(slow.Id, Soon);
        await daemon.EndAsync(slow, JobState.Cancelled);
        Assert.NotEqual(0, QemuImg.Start("qemu-io", ["-f", "qcow2", "-c", "write 0 512", daemon.In("middle.qcow2")]).Code); // locked
        await daemon.EndAsync(await daemon.Client.StreamDiskAsync(vm.Name, "disk0", new DiskStreamWish(daemon.In("root.raw")), Soon));
        Write("middle.qcow2", "qcow2", "-P 9 0 24M"); // nobody has it any more
        await vm.WritesAsync();
        await daemon.EndAsync(await daemon.Client.StreamDiskAsync(vm.Name, "disk0", new DiskStreamWish(), Soon));
        Write("root.raw", "raw", "-P 9 0 24M");
        await vm.WritesAsync();
        await vm.VerifiesAsync();
        QemuImg.Run("check", daemon.In("top.qcow2"));
        Assert.DoesNotContain("backing file", QemuImg.Run("info", daemon.In("top.qcow2")), StringComparison.Ordinal);
        foreach (int mib in (int[])[20, 21, 22])
        {
            (int code, string said) = QemuImg.Start(
                "qemu-io", ["-r", "-f", "qcow2", "-c", $"read -P {mib - 19} {mib}M 1M", daemon.In("top.qcow2")]);
            Assert.True(code == 0 && !said.Contains("failed", StringComparison.Ordinal), said);
        }

        void Write(string file, string format, string what)
        {
            (int code, string said) = QemuImg.Start("qemu-io", ["-f", format, "-c", "write " + what, daemon.In(file)]);
            Assert.True(code == 0 && said.Contains("wrote", StringComparison.Ordinal), said);
        }
    }

    /// <summary>Within its L1 table, and to one that lies elsewhere.</summary>
    [KvmTheory]
    [InlineData(64)]
    [InlineData(5 << 10)]
    public async Task An_image_grows_and_its_guest_writes_to_the_new_end(int mib)
    {
        await using LiveDaemon daemon = await StartAsync();
        QemuImg.Run("create", "-f", "raw", daemon.In("base.raw"), "48M"); // longer than the image over it
        QemuImg.Start("qemu-io", ["-f", "raw", "-c", "write -P 7 0 48M", daemon.In("base.raw")]);
        QemuImg.Run("create", "-f", "qcow2", "-o", "cluster_size=4k", "-F", "raw", "-b", "base.raw", daemon.In("disk.qcow2"), "32M");
        LiveVm vm = await daemon.RunAsync("blk", "mode=grow", "disks: [{path: disk.qcow2, format: qcow2}]\n");
        await vm.SaysAsync("READY sectors=65536");
        DiskSize size = await daemon.Client.ResizeDiskAsync(vm.Name, "disk0", (long)mib << 20, Soon);
        Assert.Equal((long)mib << 20, (long)size.SizeBytes);
        await vm.SaysAsync($"RESULT blk grow=ok sectors={(long)mib << 11}");
        await vm.EndsWellAsync();
        QemuImg.Run("check", daemon.In("disk.qcow2"));
        (int code, string said) = QemuImg.Start(
            "qemu-io", ["-r", "-f", "qcow2", "-c", "read -P 7 0 32M", "-c", "read -P 0 32M 31M", daemon.In("disk.qcow2")]);
        Assert.True(code == 0 && !said.Contains("failed", StringComparison.Ordinal), said);
    }

    [KvmFact(NeedsRoot = true)]
    public async Task A_vm_waits_for_space_on_a_full_file_system_and_goes_on_by_itself()
    {
        await using LiveDaemon daemon = await StartAsync();
        string small = Directory.CreateDirectory(daemon.In("small")).FullName;
        Do("mount", "-t", "tmpfs", "-o", "size=28M", "vmm-test", small);
        try
        {
            string image = Path.Combine(small, "disk.qcow2"), ballast = Path.Combine(small, "ballast");
            QemuImg.Run("create", "-f", "qcow2", image, "24M");
            await File.WriteAllBytesAsync(ballast, new byte[24 << 20]);
            LiveVm vm = await daemon.RunAsync(
                "blk", Works, "disks: [{path: small/disk.qcow2, format: qcow2, queues: 2}]\n");
            await vm.IsAsync(VmState.Paused);
            await vm.UntilAsync(async () => (await vm.ShowAsync()).WaitsFor is not null, "which disk it waits for");
            Assert.Contains($"disk0 ({image}): no space left", (await vm.ShowAsync()).WaitsFor!, StringComparison.Ordinal);
            await daemon.Client.DoAsync(vm.Name, "resume", Soon); // there is none still
            await vm.UntilAsync(async () => (await vm.EventsAsync("disk-waits")).Count > 1, "waits again");
            await vm.IsAsync(VmState.Paused);
            File.Delete(ballast);
            await vm.IsAsync(VmState.Running);
            await vm.WritesAsync();
            Assert.NotEmpty(await vm.EventsAsync("disk-goes-on"));
            Assert.Empty(await vm.EventsAsync("disk-error"));
            await vm.VerifiesAsync();
            QemuImg.Run("check", image);
        }
        finally
        {
            Do("umount", "-l", small);
        }
    }

    [KvmFact]
    public async Task A_file_that_is_deleted_is_told_and_the_guest_goes_on()
    {
        await using LiveDaemon daemon = await StartAsync();
        QemuImg.Run("create", "-f", "raw", daemon.In("base.raw"), "24M");
        QemuImg.Run("create", "-f", "qcow2", "-F", "raw", "-b", "base.raw", daemon.In("disk.qcow2"));
        LiveVm vm = await daemon.RunAsync("blk", Works, "disks: [{path: disk.qcow2, format: qcow2}]\n");
        await vm.WritesAsync();
        Look();
        Assert.Empty(await vm.EventsAsync("disk-file-gone"));
        File.Delete(daemon.In("disk.qcow2"));
        Look();
        Assert.Contains(daemon.In("disk.qcow2"), Assert.Single(await vm.EventsAsync("disk-file-gone")), StringComparison.Ordinal);
        File.Delete(daemon.In("base.raw"));
        Look();
        Assert.Equal(2, (await vm.EventsAsync("disk-file-gone")).Count);
        await vm.WritesAsync();
        await vm.VerifiesAsync();

        void Look() => daemon.Host.Vms.All.Single().DiskFiles.Look();
    }

    /// <summary>
    /// What it lost is an error of the guest, or its VM waits; no worker dies of it, and vmmd says what happened. (The guest only reads:
    /// what is written behind the end of a file makes it longer again, with zeros before.)
    /// </summary>
    [KvmTheory]
    [InlineData("disk.raw", "report")]
    [InlineData("disk.raw", "pause")]
    [InlineData("disk.qcow2", "report")]
    [InlineData("disk.qcow2", "pause")]
    public async Task A_file_that_is_cut_short_is_told_and_costs_no_worker(string file, string policy)
    {
        await using LiveDaemon daemon = await StartAsync();
        string format = Path.GetExtension(file)[1..];
        QemuImg.Run("create", "-f", format, "-o", "preallocation=full", daemon.In(file), "24M");
        LiveVm vm = await daemon.RunAsync("blk", "mode=bench op=read seconds=100000 tsc_khz=2000000",
            $"disks: [{{path: {file}, format: {format}, onError: {{io: {policy}}}}}]\n");
        await vm.UntilAsync(async () => (await vm.DiskAsync()).ReadRequests > 0, "reads");
        daemon.Host.Vms.All.Single().DiskFiles.Look();
        await daemon.Client.DoAsync(vm.Name, "pause", Soon);
        using (FileStream cut = new(daemon.In(file), FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            cut.SetLength(1 << 20);
        }

        daemon.Host.Vms.All.Single().DiskFiles.Look();
        Assert.Contains("was cut from", Assert.Single(await vm.EventsAsync("disk-file-short")), StringComparison.Ordinal);
        await daemon.Client.DoAsync(vm.Name, "resume", Soon);
        if (policy is "pause")
        {
            await vm.UntilAsync(async () => (await vm.ShowAsync()) is { State: VmState.Paused, WaitsFor: { } why }
                && why.Contains("I/O errors", StringComparison.Ordinal), "a VM that waits");
            await daemon.Client.DoAsync(vm.Name, "stop", Soon);
            Assert.Equal(ExitReason.Stopped, (await vm.ShowAsync()).LastExit!.Reason);
            return;
        }

        await vm.UntilAsync(async () => !(await vm.ShowAsync()).State.IsUp(), "the end of its guest");
        await vm.UntilAsync(() => Task.FromResult(vm.Said.Contains("read: status 1", StringComparison.Ordinal)), "what its guest says");
        Assert.Equal(ExitReason.DebugExit, (await vm.ShowAsync()).LastExit!.Reason);
        Assert.NotEmpty(await vm.EventsAsync("disk-error"));
    }

    private static void Do(string program, params string[] arguments)
    {
        using Process process = Process.Start(program, arguments);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }
}
