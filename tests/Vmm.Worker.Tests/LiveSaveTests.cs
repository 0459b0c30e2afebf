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
}
