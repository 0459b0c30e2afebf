using Microsoft.Win32.SafeHandles;
using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.LifeCycle;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Storage.Tests.Qcow2;
using Vmm.Testing;
using static Vmm.Worker.Tests.WorkerFixture;

namespace Vmm.Worker.Tests;

/// <summary>Saves of real, confined workers, which have no file system: the files come as descriptors.</summary>
[Trait("Tier", "kvm")]
public sealed class SaveTests : IDisposable
{
    private static readonly VmSpec s_spec = SpecOf("spin", "every=40000000 ticks=100"),
        s_endless = SpecOf("spin", "every=20000000 ticks=0");

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-saves-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [KvmFact]
    public async Task A_saved_vm_goes_on_in_another_worker_where_it_was()
    {
        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 2_100_000_000u : null);
        VmSpec spec = Large();
        IWorker first = await fixture.LaunchAsync(spec);
        await using Stream heard = await first.OpenConsoleAsync(Soon);
        await first.StartAsync(Soon);
        string before = await ReadUntilAsync(heard, "TICK spin 3\n");
        await SaveAsync(first);
        Assert.Equal(VmState.Paused, first.State);
        Assert.DoesNotContain(first.Confinement!.Missing, missing => missing.StartsWith("seccomp", StringComparison.Ordinal));
        await first.StopAsync(Soon);
        using (StreamReader rest = new(heard))
        {
            before += await rest.ReadToEndAsync(Soon); // what it said until the save
        }

        IWorker second = await RestoreAsync(fixture, spec);
        Assert.Equal(VmState.Starting, second.State);
        await using Stream console = await second.OpenConsoleAsync(Soon);
        await second.StartAsync(Soon);
        string after = await ReadUntilAsync(console, "RESULT");
        Assert.Equal(ExitReason.DebugExit, (await second.Ended.WaitAsync(Soon)).Reason);
        string all = before + after;
        for (int tick = 1; tick <= 100; tick++)
        {
            Assert.Equal(2, all.Split($"TICK spin {tick}\n").Length); // once
        }
    }

    /// <summary>The guest checks each page before it writes it again; both workers are confined, and page.</summary>
    [KvmFact(NeedsPager = true)]
    public async Task A_vm_whose_memory_is_mostly_out_is_saved_and_restored_whole()
    {
        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 2_100_000_070u : null);
        VmSpec spec = SpecOf("dirty", "mib=160 seconds=12 tsc_khz=2500000") with
        {
            Memory = ByteSize.MiB(240),
            Paging = new PagingSpec { Resident = MemoryPortion.Of(ByteSize.MiB(64)), Swap = _folder },
        };
        IWorker first = await fixture.LaunchAsync(spec);
        await using Stream heard = await first.OpenConsoleAsync(Soon);
        await first.StartAsync(Soon);
        await ReadUntilAsync(heard, "READY dirty");
        await SaveAsync(first);
        Assert.Equal(VmState.Paused, first.State);
        Assert.DoesNotContain(first.Confinement!.Missing, missing => missing.StartsWith("seccomp", StringComparison.Ordinal));
        await first.StopAsync(Soon);

        IWorker second = await RestoreAsync(fixture, spec);
        await using Stream console = await second.OpenConsoleAsync(Soon);
        await second.StartAsync(Soon);
        Assert.DoesNotContain("CORRUPT", await ReadUntilAsync(console, "RESULT dirty"), StringComparison.Ordinal);
        WorkerExit end = await second.Ended.WaitAsync(Soon);
        Assert.Equal((ExitReason.DebugExit, 0), (end.Reason, end.ExitCode));
    }

    [KvmFact]
    public async Task A_saved_vm_finds_the_images_of_its_disk_again_and_refuses_others()
    {
        (string root, string middle, string top) = (At("root.img"), At("middle.qcow2"), At("top.qcow2"));
        QemuImg.Run("create", "-f", "raw", root, "32M");
        QemuImg.Run("create", "-f", "qcow2", "-F", "raw", "-b", root, middle);
        QemuImg.Run("create", "-f", "qcow2", "-F", "qcow2", "-b", middle, top);
        await using WorkerFixture fixture = new(firstUser: Environment.IsPrivilegedProcess ? 2_100_000_050u : null);
        VmSpec spec = SpecOf("blk", "requests=20000") with { Disks = [new DiskSpec { Path = top, Format = DiskFormat.Qcow2 }] };
        IWorker first = await fixture.LaunchAsync(spec);
        await using Stream console = await first.OpenConsoleAsync(Soon);
        await first.StartAsync(Soon);
        await ReadUntilAsync(console, "DISK");
        await SaveAsync(first);
        await first.StopAsync(Soon);
        QemuImg.Run("check", top);
        QemuImg.Run("rebase", "-u", "-F", "raw", "-b", root, top);
        WorkerException refused = await Assert.ThrowsAsync<WorkerException>(() => RestoreAsync(fixture, spec));
        Assert.Equal(ControlCodes.SavedStateRefused, refused.Code);
        Assert.Contains("was rebased since", refused.Message, StringComparison.Ordinal);
        QemuImg.Run("rebase", "-u", "-F", "qcow2", "-b", middle, top);
        IWorker second = await RestoreAsync(fixture, spec);
        await using Stream heard = await second.OpenConsoleAsync(Soon);
        await second.StartAsync(Soon);
        await ReadUntilAsync(heard, "verify=ok");
        Assert.Equal(ExitReason.DebugExit, (await second.Ended.WaitAsync(Soon)).Reason);
        QemuImg.Run("check", top);
    }

    private string At(string name) => Path.Combine(_folder, name);

    [KvmFact]
    public async Task A_save_that_is_undone_lets_the_vm_go_on_and_can_be_made_again()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await RunUntilAsync(fixture, "TICK spin 2\n");
        await SaveAsync(worker);
        WorkerException twice = await Assert.ThrowsAsync<WorkerException>(() => SaveAsync(worker));
        Assert.Equal(ControlCodes.WrongState, twice.Code);
        await worker.UndoSaveAsync(Soon);
        Assert.Equal(VmState.Running, worker.State);
        await SaveAsync(worker);
        await worker.UndoSaveAsync(Soon);
        await TicksAsync(worker);
    }

    [KvmFact]
    public async Task A_paused_vm_is_paused_after_an_undone_save()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await RunUntilAsync(fixture, "TICK spin 2\n");
        await worker.PauseAsync(Soon);
        await SaveAsync(worker);
        await worker.UndoSaveAsync(Soon);
        Assert.Equal(VmState.Paused, worker.State);
        await worker.ResumeAsync(Soon);
        await TicksAsync(worker);
    }

    [KvmFact]
    public async Task Files_that_are_missing_damaged_or_too_small_are_told_and_the_vm_goes_on()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await RunUntilAsync(fixture, "TICK spin 2\n");
        Assert.Contains(
            "memory-0.bin",
            (await Assert.ThrowsAsync<WorkerException>(() => SaveAsync(worker, SavedVmFiles.Document))).Message,
            StringComparison.Ordinal);
        Assert.Equal(VmState.Running, worker.State);

        await SaveAsync(worker);
        await worker.StopAsync(Soon);
        string memory = Path.Combine(_folder, "memory-0.bin"), document = Path.Combine(_folder, "vm.json");
        byte[] whole = await File.ReadAllBytesAsync(document);
        await File.WriteAllBytesAsync(document, whole[..^100]);
        Assert.Equal(ControlCodes.SavedStateRefused, (await Assert.ThrowsAsync<WorkerException>(() => RestoreAsync(fixture))).Code);
        await File.WriteAllBytesAsync(document, whole);

        using (SafeFileHandle file = File.OpenHandle(memory, FileMode.Open, FileAccess.ReadWrite))
        {
            byte[] one = new byte[1];
            RandomAccess.Read(file, one, 0x100000);
            one[0] ^= 1;
            RandomAccess.Write(file, one, 0x100000);
        }

        WorkerException damaged = await Assert.ThrowsAsync<WorkerException>(() => RestoreAsync(fixture));
        Assert.Equal(ControlCodes.SavedStateRefused, damaged.Code);
        Assert.Contains("has not the content that was saved", damaged.Message, StringComparison.Ordinal);
    }

    [KvmFact]
    public async Task Its_files_are_limited_again_after_a_save()
    {
        if (!Environment.IsPrivilegedProcess)
        {
            return; // nobody limits them
        }

        await using WorkerFixture fixture = new();
        IWorker worker = await RunUntilAsync(fixture, "TICK spin 1\n");
        string limits = $"/proc/{worker.ProcessId}/limits";
        string before = (await File.ReadAllLinesAsync(limits)).Single(line => line.StartsWith("Max file size", StringComparison.Ordinal));
        await SaveAsync(worker);
        Assert.Contains(before, await File.ReadAllLinesAsync(limits));
    }

    /// <summary>One with most of what a spec can have: what is written of it is large.</summary>
    private VmSpec Large()
    {
        string[] disks = [.. Enumerable.Range(0, 3).Select(i => Path.Combine(_folder, $"disk{i}.raw"))];
        Array.ForEach(disks, disk => File.WriteAllBytes(disk, new byte[1 << 20]));
        return s_spec with
        {
            Disks = [.. disks.Select((disk, i) =>
                new DiskSpec { Path = disk, ReadOnly = i == 2, Serial = "s" + i, Limits = new LimitsSpec { Operations = 500 } })],
            Balloon = new BalloonSpec(),
            Vsock = new VsockSpec { Cid = 7, Path = Path.Combine(_folder, "v.sock") },
        };
    }

    private static async Task TicksAsync(IWorker worker)
    {
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        byte[] history = new byte[256 * 1024];
        _ = await console.ReadAsync(history, Soon);
        await ReadUntilAsync(console, "TICK");
    }

    private static async Task<IWorker> RunUntilAsync(WorkerFixture fixture, string text)
    {
        IWorker worker = await fixture.LaunchAsync(s_endless);
        await using Stream console = await worker.OpenConsoleAsync(Soon);
        await worker.StartAsync(Soon);
        await ReadUntilAsync(console, text);
        return worker;
    }

    private async Task SaveAsync(IWorker worker, params string[] only)
    {
        List<(string Name, FileDescriptorHandle File)> files =
            [.. SavedVmFiles.Of(s_spec)
                .Where(name => only.Length == 0 || only.Contains(name))
                .Select(name => (name, Open(name, FileMode.Create)))];
        try
        {
            await worker.SaveAsync(files, 128 << 20, TimeSpan.FromSeconds(60), Soon);
        }
        finally
        {
            files.ForEach(part => part.File.Dispose());
        }
    }

    private async Task<IWorker> RestoreAsync(WorkerFixture fixture, VmSpec? spec = null)
    {
        spec ??= s_spec;
        List<(string Name, FileDescriptorHandle File)> files = [.. SavedVmFiles.Of(s_spec)
            .Select(name => (name, Open(name, FileMode.Open)))];
        try
        {
            return fixture.Own(await fixture.Launcher.RestoreAsync(Guid.NewGuid().ToString(), spec, files, lazily: false, null, Soon));
        }
        finally
        {
            files.ForEach(part => part.File.Dispose());
        }
    }

    private FileDescriptorHandle Open(string name, FileMode mode)
    {
        using SafeFileHandle file = File.OpenHandle(Path.Combine(_folder, name), mode, FileAccess.ReadWrite);
        nint number = file.DangerousGetHandle();
        file.SetHandleAsInvalid();
        return new FileDescriptorHandle(number);
    }
}
