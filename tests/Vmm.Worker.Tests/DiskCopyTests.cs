using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Tests.Qcow2;
using Vmm.Testing;
using static Vmm.Worker.Tests.WorkerFixture;

namespace Vmm.Worker.Tests;

/// <summary>
/// Disks of real, confined workers that are copied while their guest writes and verifies them: the threads of the target's image, too, come
/// to be when nothing is opened any more. qemu-img judges.
/// </summary>
[Trait("Tier", "kvm")]
public sealed class DiskCopyTests : IDisposable
{
    private static readonly uint? s_user = Environment.IsPrivilegedProcess ? 1_900_000_900u : null;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-wc-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmTheory]
    [InlineData("raw", "qcow2", false, DiskCache.Direct)]
    [InlineData("qcow2", "raw", false, DiskCache.Buffered)]
    [InlineData("qcow2", "qcow2", false, DiskCache.Direct)]
    [InlineData("qcow2", "qcow2", true, DiskCache.Direct)]
    [InlineData("qcow2", "qcow2", true, DiskCache.Buffered)]
    public async Task A_confined_worker_goes_over_to_a_disk_of_any_format(string from, string to, bool topOnly, DiskCache cache)
    {
        DiskSpec disk = Source(from) with { Cache = cache, Queues = 2 };
        await using WorkerFixture fixture = new(firstUser: s_user);
        IWorker worker = await fixture.LaunchAsync(SpecOf("blk", "requests=6000") with { Disks = [disk] });
        Assert.DoesNotContain(worker.Confinement!.Missing, missing => missing.StartsWith("seccomp", StringComparison.Ordinal));
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await WritesAsync(worker);
        DiskSpec next = disk with { Path = Target(to, topOnly), Format = to == "raw" ? DiskFormat.Raw : DiskFormat.Qcow2 };
        await CopyAsync(worker, next, topOnly);
        await worker.StepDiskCopyAsync("disk0", DiskCopyStep.Seal, Soon);
        await worker.StepDiskCopyAsync("disk0", DiskCopyStep.Finish, Soon);
        Assert.Equal(next.Path, (await worker.DevicesAsync(Soon)).Devices.Single().Source);
        byte[] before = await File.ReadAllBytesAsync(disk.Path);
        await VerifiedAsync(console);
        Assert.Equal(new WorkerExit(ExitReason.DebugExit, 0, null), await worker.Ended.WaitAsync(Soon));
        Assert.Equal(before, await File.ReadAllBytesAsync(disk.Path)); // nobody wrote it any more
        if (to == "qcow2")
        {
            QemuImg.Run("check", next.Path);
            string[] names = topOnly ? [next.Path, At("middle.qcow2"), At("root.img")] : [next.Path];
            Assert.Equal(names, ImageChainInfo.Read(next.Path, "qcow2").Select(image => image.Path));
        }
    }

    [KvmFact]
    public async Task A_copy_that_is_given_up_or_whose_worker_is_killed_leaves_sound_images()
    {
        for (int round = 0; round < 3; round++)
        {
            DiskSpec disk = Source("qcow2");
            await using WorkerFixture fixture = new(firstUser: s_user);
            IWorker worker = await fixture.LaunchAsync(SpecOf("blk", $"requests=3000 seed={round}") with { Disks = [disk] });
            await using Stream console = await worker.OpenConsoleAsync(Soon);
            await worker.StartAsync(Soon);
            await WritesAsync(worker);
            DiskSpec next = disk with { Path = Target("qcow2", topOnly: round % 2 == 0) };
            await worker.CopyDiskAsync(
                "disk0", next, new DiskCopyWish(next.Path, BytesPerSecond: 4 << 20, TopOnly: round % 2 == 0), Soon);
            if (round == 0)
            {
                await worker.StepDiskCopyAsync("disk0", DiskCopyStep.Cancel, Soon);
                Assert.Equal(disk.Path, (await worker.DevicesAsync(Soon)).Devices.Single().Source);
                await VerifiedAsync(console);
                await worker.Ended.WaitAsync(Soon);
                QemuImg.Run("check", disk.Path);
            }
            else
            {
                using System.Diagnostics.Process process = System.Diagnostics.Process.GetProcessById(worker.ProcessId);
                process.Kill();
                await worker.Ended.WaitAsync(Soon);
            }

            IWorker again = await fixture.LaunchAsync(SpecOf("blk") with { Disks = [disk] }); // its locks are free
            await using Stream say = await again.OpenConsoleAsync(Soon);
            await again.StartAsync(Soon);
            await VerifiedAsync(say);
            await again.Ended.WaitAsync(Soon);
            foreach (string image in (string[])[disk.Path, next.Path])
            {
                (int code, string said) = QemuImg.Try("check", image);
                Assert.True(code is 0 or 3, $"round {round}, {image}: {code}: {said}"); // 3: leaks and nothing else (qemu-img(1))
            }

            Array.ForEach(Directory.GetFiles(_folder), File.Delete);
        }
    }

    // A guest says nothing before its end, and a loaded machine takes its time with flushes.
    private static async Task VerifiedAsync(Stream console)
    {
        using CancellationTokenSource patience = new(TimeSpan.FromMinutes(5));
        using StreamReader reader = new(console, leaveOpen: true);
        string? line;
        do
        {
            line = await reader.ReadLineAsync(patience.Token);
        }
        while (line?.Contains("RESULT", StringComparison.Ordinal) == false);

        Assert.Contains("RESULT blk verify=ok", line, StringComparison.Ordinal);
    }

    private static async Task WritesAsync(IWorker worker)
    {
        for (int i = 0; i < 2400 && (await worker.GetStatsAsync(Soon)).Disks.Single().WriteRequests < 50; i++)
        {
            await Task.Delay(25);
        }
    }

    private static async Task CopyAsync(IWorker worker, DiskSpec next, bool topOnly)
    {
        await worker.CopyDiskAsync("disk0", next, new DiskCopyWish(next.Path, TopOnly: topOnly), Soon);
        DiskCopyInfo info = new(DiskCopyState.None);
        for (int i = 0; i < 2400 && info is { State: not DiskCopyState.Mirrored, Problem: null }; i++)
        {
            await Task.Delay(25);
            info = await worker.DiskCopyAsync(Soon);
        }

        Assert.Equal((DiskCopyState.Mirrored, null), (info.State, info.Problem));
    }

    private DiskSpec Source(string format)
    {
        QemuImg.Run("create", "-f", "raw", At("root.img"), "32M");
        QemuImg.Run("create", "-f", "qcow2", "-F", "raw", "-b", "root.img", At("middle.qcow2"));
        QemuImg.Run("create", "-f", "qcow2", "-F", "qcow2", "-b", "middle.qcow2", At("top.qcow2"));
        return new DiskSpec
        {
            Path = At(format == "raw" ? "root.img" : "top.qcow2"),
            Format = format == "raw" ? DiskFormat.Raw : DiskFormat.Qcow2,
        };
    }

    // As vmmd makes it.
    private string Target(string format, bool topOnly)
    {
        string path = At("target." + format);
        if (format == "raw")
        {
            QemuImg.Run("create", "-f", "raw", path, "32M");
            return path;
        }

        Qcow2CreateOptions plain = new() { DiskSize = 32 << 20 };
        Qcow2Creator.Create(path, topOnly ? plain with { BackingFile = At("middle.qcow2"), BackingFormat = "qcow2" } : plain);
        return path;
    }

    private string At(string name) => Path.Combine(_folder, name);
}
