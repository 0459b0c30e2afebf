using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Storage.Tests.Qcow2;
using Vmm.Testing;
using static Vmm.Worker.Tests.WorkerFixture;

namespace Vmm.Worker.Tests;

/// <summary>qcow2 disks of real, confined workers: opened by the daemon, judged by qemu-img.</summary>
[Trait("Tier", "kvm")]
public sealed class Qcow2DiskTests : IDisposable
{
    private static readonly uint? s_user = Environment.IsPrivilegedProcess ? 1_900_000_700u : null;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-wq-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmTheory]
    [InlineData(DiskCache.Direct)]
    [InlineData(DiskCache.Buffered)]
    public async Task A_confined_worker_writes_the_top_of_a_chain(DiskCache cache)
    {
        string top = Chain("32M");
        (byte[] root, byte[] middle) = (File.ReadAllBytes(At("root.img")), File.ReadAllBytes(At("middle.qcow2")));
        await using WorkerFixture fixture = new(firstUser: s_user);
        IWorker worker = await fixture.LaunchAsync(
            SpecOf("blk", "poll=1") with { Disks = [Image(top) with { Cache = cache, Queues = 2 }] });
        Assert.DoesNotContain(worker.Confinement!.Missing, missing => missing.StartsWith("seccomp", StringComparison.Ordinal));
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        Assert.Contains("sectors=65536", await ReadUntilAsync(console, "RESULT blk verify=ok"), StringComparison.Ordinal);
        Assert.Equal(new WorkerExit(ExitReason.DebugExit, 0, null), await worker.Ended.WaitAsync(Soon));
        QemuImg.Run("check", top);
        Assert.Equal(root, File.ReadAllBytes(At("root.img")));
        Assert.Equal(middle, File.ReadAllBytes(At("middle.qcow2")));
        Assert.True(new FileInfo(top).Length > 8 << 20, "the guest's data are in the top");
    }

    [KvmFact]
    public async Task Images_come_and_go_in_a_confined_worker_by_force_too()
    {
        await using WorkerFixture fixture = new(pool: 1, firstUser: s_user);
        IWorker worker = await fixture.LaunchAsync(SpecOf("hotplug"));
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(console, "READY");
        string top = Chain("8M");
        for (int round = 0; round < 3; round++)
        {
            DeviceInfo added = await worker.AddDiskAsync(Image(top), Soon);
            await ReadUntilAsync(console, $"ADDED slot={added.Slot} mib=8");
            if (round == 2)
            {
                await console.WriteAsync("w"u8.ToArray(), Soon);
                await Task.Delay(100);
            }

            DeviceRemoval how = await worker.RemoveDeviceAsync(
                added.Name, round == 2 ? TimeSpan.Zero : TimeSpan.FromSeconds(30), force: round == 2, Soon);
            Assert.Equal(round == 2 ? DeviceRemoval.Forced : DeviceRemoval.Removed, how);
            QemuImg.Run("check", top);
        }
    }

    /// <summary>Its descriptors need several packets.</summary>
    [KvmFact]
    public async Task A_chain_of_200_images_reaches_a_worker_in_order()
    {
        QemuImg.Run("create", "-f", "qcow2", At("0000.img"), "8M");
        QemuImg.Run("create", "-f", "qcow2", "-F", "qcow2", "-b", "0000.img", At("x.img"));
        byte[] overlay = File.ReadAllBytes(At("x.img"));
        int name = overlay.AsSpan().IndexOf("0000.img"u8);
        for (int i = 1; i < 200; i++)
        {
            System.Text.Encoding.ASCII.GetBytes($"{i - 1:0000}.img").CopyTo(overlay, name);
            await File.WriteAllBytesAsync(At($"{i:0000}.img"), overlay, Soon);
        }

        await using WorkerFixture fixture = new(firstUser: s_user);
        IWorker worker = await fixture.LaunchAsync(SpecOf("blk") with { Disks = [Image(At("0199.img"))] });
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        Assert.Contains("sectors=16384", await ReadUntilAsync(console, "RESULT blk verify=ok"), StringComparison.Ordinal);
        await worker.Ended.WaitAsync(Soon);
        QemuImg.Run("check", At("0199.img"));
        Assert.Equal(overlay.Length, new FileInfo(At("0198.img")).Length); // only the top was written
    }

    /// <summary>Whatever it was at: what was promised is there, and what is lost are clusters that nobody has.</summary>
    [KvmFact]
    public async Task A_worker_that_is_killed_leaves_an_image_with_leaks_at_most()
    {
        for (int round = 0; round < 6; round++)
        {
            string top = Chain("32M");
            await using WorkerFixture fixture = new(firstUser: s_user);
            IWorker worker = await fixture.LaunchAsync(SpecOf("blk", $"requests=1000000 seed={round}") with { Disks = [Image(top)] });
            await using Stream console = await worker.OpenConsoleAsync(Soon);
            await worker.StartAsync(Soon);
            await ReadUntilAsync(console, "DISK");
            await Task.Delay(50 + (round * 70));
            using (System.Diagnostics.Process process = System.Diagnostics.Process.GetProcessById(worker.ProcessId))
            {
                process.Kill();
            }

            Assert.Equal(ExitReason.WorkerDied, (await worker.Ended.WaitAsync(Soon)).Reason);
            (int code, string said) = Check(top);
            Assert.True(code is 0 or 3, $"{code}: {said}"); // 3: leaks and nothing else (qemu-img(1))
            IWorker next = await fixture.LaunchAsync(SpecOf("blk") with { Disks = [Image(top)] }); // and the next VM works with it
            await using Stream again = await next.OpenConsoleAsync(Soon);
            await next.StartAsync(Soon);
            await ReadUntilAsync(again, "RESULT blk verify=ok");
            await next.Ended.WaitAsync(Soon);
            (code, said) = Check(top);
            Assert.True(code is 0 or 3, $"{code}: {said}");
            Array.ForEach(Directory.GetFiles(_folder), File.Delete);
        }
    }

    // What the kernel has of a killed process may be let go a moment later.
    private static (int Code, string Said) Check(string image)
    {
        (int Code, string Said) answer = (1, "lock");
        for (int i = 0; i < 100 && answer.Said.Contains("lock", StringComparison.Ordinal); i++)
        {
            Thread.Sleep(i == 0 ? 0 : 20);
            answer = QemuImg.Try("check", image);
        }

        return answer;
    }

    private string Chain(string size)
    {
        QemuImg.Run("create", "-f", "raw", At("root.img"), size);
        QemuImg.Run("create", "-f", "qcow2", "-F", "raw", "-b", "root.img", At("middle.qcow2"));
        QemuImg.Run("create", "-f", "qcow2", "-F", "qcow2", "-b", "middle.qcow2", At("top.qcow2"));
        return At("top.qcow2");
    }

    private string At(string name) => Path.Combine(_folder, name);

    private static DiskSpec Image(string path) => new() { Path = path, Format = DiskFormat.Qcow2 };
}
