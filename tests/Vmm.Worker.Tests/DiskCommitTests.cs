using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Tests.Qcow2;
using Vmm.Testing;
using static Vmm.Worker.Tests.WorkerFixture;

namespace Vmm.Worker.Tests;

/// <summary>
/// A confined worker commits the disk of a guest that writes it, verifies all that it reads, and ends well only when nothing failed.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class DiskCommitTests : IDisposable
{
    private const int Size = 32 << 20;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-commit-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmTheory]
    [InlineData(DiskFormat.Raw, DiskCache.Direct)]
    [InlineData(DiskFormat.Qcow2, DiskCache.Direct)]
    [InlineData(DiskFormat.Qcow2, DiskCache.Buffered)]
    public async Task A_guest_that_writes_goes_on_in_the_base(DiskFormat format, DiskCache cache)
    {
        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 2_100_000_060u : null);
        DiskSpec below = Make(format, cache), top = below with { Path = At("top.qcow2"), Format = DiskFormat.Qcow2 };
        IWorker worker = await fixture.LaunchAsync(SpecOf("blk", "requests=8000") with { Disks = [below] });
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await WrittenAsync(worker, 100);
        Overlay(top.Path, below);
        await worker.SnapshotDisksAsync([("disk0", top)], cut: false, Soon);
        await WrittenAsync(worker, 200);

        // One that is given up, and one that is carried out.
        await worker.CommitDiskAsync("disk0", below, 64 << 10, Soon);
        await WrittenAsync(worker, 300);
        await worker.StepDiskCopyAsync("disk0", DiskCopyStep.Cancel, Soon);
        await WrittenAsync(worker, 400);
        await worker.CommitDiskAsync("disk0", below, null, Soon);
        DiskCopyInfo info;
        do
        {
            info = await worker.DiskCopyAsync(Soon);
            Assert.Null(info.Problem);
        }
        while (info.State == DiskCopyState.Copying);
        Assert.Equal(DiskCopyState.Mirrored, info.State);
        await worker.StepDiskCopyAsync("disk0", DiskCopyStep.Seal, Soon);
        await WrittenAsync(worker, 500);
        Assert.False(worker.Ended.IsCompleted, "the guest was over before its disk was committed");
        await worker.StepDiskCopyAsync("disk0", DiskCopyStep.Finish, Soon);
        Assert.Equal(below.Path, (await worker.DevicesAsync(Soon)).Devices.Single(device => device.Kind is "disk").Source);
        File.Delete(top.Path); // nothing of it is needed

        Assert.Equal(ExitReason.DebugExit, (await worker.Ended.WaitAsync(TimeSpan.FromMinutes(5))).Reason);
        Assert.Contains("verify=ok", await ReadUntilAsync(console, "RESULT blk"), StringComparison.Ordinal);
        if (format == DiskFormat.Qcow2)
        {
            QemuImg.Run("check", below.Path); // no leak either
        }
    }

    [KvmFact]
    public async Task A_base_that_others_use_or_that_is_not_below_is_refused_by_name()
    {
        await using WorkerFixture fixture = new();
        DiskSpec below = Make(DiskFormat.Raw, DiskCache.Buffered), top = below with { Path = At("top.qcow2"), Format = DiskFormat.Qcow2 };
        Overlay(top.Path, below);
        DiskSpec stranger = below with { Path = At("other.img") };
        File.Copy(below.Path, stranger.Path);
        IWorker worker = await fixture.LaunchAsync(SpecOf("blk", "requests=8000") with { Disks = [top] });
        await worker.StartAsync(Soon);
        WorkerException refused = await Assert.ThrowsAsync<WorkerException>(() => worker.CommitDiskAsync("disk0", stranger, null, Soon));
        Assert.Contains("is not below a disk of this VM", refused.Message, StringComparison.Ordinal);
        using (RawFileBackend.Open(below.Path, new RawFileOptions { ReadOnly = true }))
        {
            // The test's own lock: the look by name passes over this process, the worker's lock does not.
            refused = await Assert.ThrowsAsync<WorkerException>(() => worker.CommitDiskAsync("disk0", below, null, Soon));
            Assert.Contains("is used by another VM or program", refused.Message, StringComparison.Ordinal);
        }

        await worker.CommitDiskAsync("disk0", below, null, Soon); // and now it is free
        await worker.StepDiskCopyAsync("disk0", DiskCopyStep.Cancel, Soon);
    }

    private string At(string name) => Path.Combine(_folder, name);

    private DiskSpec Make(DiskFormat format, DiskCache cache)
    {
        string path = At(format == DiskFormat.Raw ? "base.img" : "base.qcow2");
        if (format == DiskFormat.Qcow2)
        {
            Qcow2Creator.Create(path, new Qcow2CreateOptions { DiskSize = Size });
        }
        else
        {
            using FileStream file = File.Create(path);
            file.SetLength(Size);
        }

        return new DiskSpec { Path = path, Format = format, Cache = cache };
    }

    private static void Overlay(string path, DiskSpec below) => Qcow2Creator.Create(
        path,
        Qcow2CreateOptions.Over(
            Path.GetFileName(below.Path), below.Format == DiskFormat.Qcow2 ? ImageFormat.Qcow2 : ImageFormat.Raw, Size));

    private static async Task WrittenAsync(IWorker worker, long writes)
    {
        for (int i = 0; i < 2400; i++)
        {
            if ((await worker.GetStatsAsync(Soon)).Disks.Sum(disk => disk.WriteRequests) >= writes)
            {
                return;
            }

            await Task.Delay(25);
        }

        Assert.Fail($"no {writes} writes");
    }
}
