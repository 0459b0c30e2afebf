using Vmm.Contracts.Rest;
using Vmm.LifeCycle;
using Vmm.Testing;
using static Vmm.Worker.Tests.LiveDaemon;

namespace Vmm.Worker.Tests;

/// <summary>Saves through vmmd of confined workers.</summary>
[Trait("Tier", "kvm")]
public sealed class LiveSaveTests : IDisposable
{
    private readonly string _folder = Directory.CreateDirectory($"/dev/shm/vmm-save-{Guid.NewGuid():N}").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    /// <summary>
    /// What is written to a file system in memory is charged to the control group of the worker. It was ended for it, with its VM. The
    /// guest checks every page that it writes again.
    /// </summary>
    [KvmFact]
    public async Task A_large_vm_is_saved_into_memory_undone_saved_again_and_restored()
    {
        await using LiveDaemon daemon = await StartAsync(options => options with { Storage = [.. options.Storage!, _folder] });
        LiveVm vm = await daemon.RunAsync("dirty", "mib=560 seconds=0 rate=20000 tsc_khz=2500000", "", memory: "640MiB");
        await vm.SaysAsync("READY dirty");
        string saved = Path.Combine(_folder, "saved"), other = Path.Combine(_folder, "other");
        JobInfo given = await daemon.Client.SaveAsync(vm.Name, other, Soon);
        await daemon.Client.CancelJobAsync(given.Id, Soon);
        await vm.UntilAsync(
            async () => (await daemon.Client.JobAsync(given.Id, Soon)).State != JobState.Running, "the end of a save that was cancelled");
        if ((await vm.ShowAsync()).State == VmState.Saved)
        {
            await daemon.EndAsync(await daemon.Client.RestoreAsync(other, Soon)); // it was quicker
        }

        await vm.IsAsync(VmState.Running);
        await daemon.EndAsync(await daemon.Client.SaveAsync(vm.Name, saved, Soon));
        await daemon.EndAsync(await daemon.Client.RestoreAsync(saved, Soon));
        string before = vm.Said;
        await vm.ConsoleAsync();
        await vm.UntilAsync(
            () => Task.FromResult(vm.Said.Length > before.Length && vm.Said.Contains("TICK", StringComparison.Ordinal)), "its next words");
        Assert.DoesNotContain("CORRUPT", vm.Said, StringComparison.Ordinal);
        await daemon.Client.DoAsync(vm.Name, "stop", Soon);
    }

    /// <summary>
    /// Restored lazily by a confined worker, saved amid that, and restored lazily again under a vmmd that is gone before it is over. The
    /// guest checks every page that it writes again.
    /// </summary>
    [KvmTheory(NeedsPager = true)]
    [InlineData("640MiB")]
    [InlineData("{size: 640MiB, resident: 128MiB}")]
    public async Task A_vm_runs_while_its_memory_comes_from_the_folder_and_needs_no_vmmd_for_it(string memory)
    {
        await using LiveDaemon daemon = await StartAsync(options => options with { Storage = [.. options.Storage!, _folder] });
        LiveVm vm = await daemon.RunAsync("dirty", "mib=560 seconds=0 rate=60000 tsc_khz=2500000", "", memory: memory);
        await vm.SaysAsync("READY dirty");
        string first = Path.Combine(_folder, "first"), second = Path.Combine(_folder, "second");
        await daemon.EndAsync(await daemon.Client.SaveAsync(vm.Name, first, Soon));
        await daemon.EndAsync(await daemon.Client.RestoreAsync(new RestoreRequest(first, Lazy: true), Soon));
        await daemon.EndAsync(await daemon.Client.SaveAsync(vm.Name, second, Soon));
        Directory.Delete(first, recursive: true);
        await daemon.EndAsync(await daemon.Client.RestoreAsync(new RestoreRequest(second, Lazy: true), Soon));
        Directory.Delete(second, recursive: true); // its worker has the files open
        await daemon.RestartAsync();
        await vm.IsAsync(VmState.Running);
        await vm.UntilAsync(async () => (await daemon.Client.StatsAsync(vm.Name, Soon)).Restore is null, "the end of a lazy restore");
        await vm.UntilAsync(async () => (await vm.ShowAsync()).Restoring is null, "that vmmd knows of it");
        string before = vm.Said;
        await vm.ConsoleAsync();
        await vm.UntilAsync(
            () => Task.FromResult(vm.Said.Length > before.Length && vm.Said.Contains("TICK", StringComparison.Ordinal)), "its next words");
        Assert.DoesNotContain("CORRUPT", vm.Said, StringComparison.Ordinal);
        await daemon.Client.DoAsync(vm.Name, "stop", Soon);
    }

    [KvmFact(NeedsPager = true)]
    public async Task A_damaged_file_ends_a_vm_that_is_restored_lazily_by_name()
    {
        await using LiveDaemon daemon = await StartAsync(options => options with { Storage = [.. options.Storage!, _folder] });
        LiveVm vm = await daemon.RunAsync("dirty", "mib=64 seconds=0 rate=20000 tsc_khz=2500000", "restart: never\n", memory: "160MiB");
        await vm.SaysAsync("READY dirty");
        string saved = Path.Combine(_folder, "saved");
        await daemon.EndAsync(await daemon.Client.SaveAsync(vm.Name, saved, Soon));
        using (FileStream file = File.Open(Path.Combine(saved, "memory-0.bin"), FileMode.Open))
        {
            file.Position = (100 << 20) + 12;
            file.WriteByte(0x55);
        }

        await daemon.EndAsync(await daemon.Client.RestoreAsync(new RestoreRequest(saved, Lazy: true), Soon));
        await vm.IsAsync(VmState.Failed);
        Assert.Contains("memory-0.bin: the MiB at 104857600 has not the content that was saved", (await vm.ShowAsync()).LastExit!.Message,
            StringComparison.Ordinal);
    }
}
