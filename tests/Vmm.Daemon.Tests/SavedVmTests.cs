using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Saved;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>vm save and vm restore, with workers that only pretend.</summary>
public sealed class SavedVmTests : IAsyncLifetime
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private DaemonFixture _daemon = null!;

    public async Task InitializeAsync()
    {
        _daemon = await DaemonFixture.StartAsync();
        await _daemon.CreateAsync("web1");
        await _daemon.Client.DoAsync("web1", "start", s_none);
    }

    public async Task DisposeAsync() => await _daemon.DisposeAsync();

    private string Folder => Path.Combine(_daemon.Folder, "saved");

    private string Partial => Path.Combine(_daemon.Folder, ".saved.partial");

    private FakeWorker Worker => _daemon.Workers.Alive.Values.Single();

    private Task<VmInfo> Vm => _daemon.Client.ShowAsync("web1", s_none);

    [Fact]
    public async Task A_saved_vm_is_a_folder_without_a_worker_and_goes_on_from_there_once()
    {
        Assert.Equal(JobState.Done, (await SaveAsync()).State);
        VmInfo saved = await Vm;
        Assert.Equal((VmState.Saved, Folder), (saved.State, saved.SavedIn));
        Assert.Empty(_daemon.Workers.Alive);
        Assert.Equal(["vm.json", "vmmd.json"], Directory.GetFiles(Folder).Select(Path.GetFileName).Order());
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, File.GetUnixFileMode(Folder));
        Assert.False(Directory.Exists(Partial));

        VmmApiException refused = await Assert.ThrowsAsync<VmmApiException>(() => _daemon.Client.DoAsync("web1", "start", s_none));
        Assert.Equal("vm-saved", refused.Problem.Code);
        Assert.Contains("vmmctl vm restore " + Folder, refused.Problem.Detail, StringComparison.Ordinal);

        await _daemon.RestartAsync();
        Assert.Equal(VmState.Saved, (await Vm).State);
        Assert.Equal(JobState.Done, (await EndAsync(await _daemon.Client.RestoreAsync(Folder, s_none))).State);
        VmInfo runs = await Vm;
        Assert.Equal((VmState.Running, null), (runs.State, runs.SavedIn));
        Assert.Equal(["vm.json"], Assert.Single(_daemon.Workers.Restores));

        VmmApiException again = await Assert.ThrowsAsync<VmmApiException>(() => _daemon.Client.RestoreAsync(Folder, s_none));
        Assert.Contains("was restored already", again.Problem.Detail, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_save_that_fails_leaves_the_vm_as_it_was_and_nothing_in_the_folder(bool paused)
    {
        if (paused)
        {
            await _daemon.Client.DoAsync("web1", "pause", s_none);
        }

        Worker.RefuseSave = new WorkerException("save-failed", "unit disk0 did not come to rest");
        JobInfo job = await SaveAsync();
        Assert.Equal(JobState.Failed, job.State);
        Assert.Contains("disk0", job.Error!.Detail, StringComparison.Ordinal);
        Assert.Equal(paused ? VmState.Paused : VmState.Running, (await Vm).State);
        Assert.Equal((1, paused ? VmState.Paused : VmState.Running), (Worker.Undone, Worker.State));
        Assert.False(Directory.Exists(Folder) || Directory.Exists(Partial));

        Worker.RefuseSave = null;
        Assert.Equal(JobState.Done, (await SaveAsync()).State);
    }

    [Fact]
    public async Task While_it_is_saved_other_commands_are_refused_at_once_and_the_plug_can_be_pulled()
    {
        Worker.SaveGate = new TaskCompletionSource();
        JobInfo job = await _daemon.Client.SaveAsync("web1", Folder, s_none);
        await UntilAsync(VmState.Saving);
        foreach (string verb in (string[])["pause", "resume", "power-button"])
        {
            VmmApiException refused = await Assert.ThrowsAsync<VmmApiException>(() => _daemon.Client.DoAsync("web1", verb, s_none));
            Assert.Contains("is being saved", refused.Problem.Detail, StringComparison.Ordinal);
        }

        JobInfo second = await EndAsync(await _daemon.Client.SaveAsync("web1", Folder + "2", s_none));
        Assert.Contains("is being saved", second.Error!.Detail, StringComparison.Ordinal);
        Assert.Equal(VmState.Stopped, (await _daemon.Client.DoAsync("web1", "stop", s_none)).State);
        Assert.Equal(JobState.Failed, (await EndAsync(job)).State);
        Assert.False(Directory.Exists(Folder) || Directory.Exists(Partial));
        Assert.Equal(VmState.Running, (await _daemon.Client.DoAsync("web1", "start", s_none)).State);
    }

    [Fact]
    public async Task A_cancelled_save_lets_the_vm_go_on()
    {
        Worker.SaveGate = new TaskCompletionSource();
        JobInfo job = await _daemon.Client.SaveAsync("web1", Folder, s_none);
        await UntilAsync(VmState.Saving);
        await _daemon.Client.CancelJobAsync(job.Id, s_none);
        Assert.Equal(JobState.Cancelled, (await EndAsync(job)).State);
        Assert.Equal((VmState.Running, 1), ((await Vm).State, Worker.Undone));
        Assert.False(Directory.Exists(Folder) || Directory.Exists(Partial));
    }

    [Theory]
    [InlineData("relative", "whole path")]
    [InlineData("/etc/saved", "in no storage folder")]
    [InlineData("{folder}/.hidden", "is no name")]
    [InlineData("{folder}/missing/saved", "does not exist")]
    [InlineData("{folder}/kernel", "is there already")]
    public async Task Folders_that_cannot_be_made_are_refused_before_anything_is_done(string folder, string problem)
    {
        string path = folder.Replace("{folder}", _daemon.Folder, StringComparison.Ordinal);
        string detail;
        try
        {
            detail = (await EndAsync(await _daemon.Client.SaveAsync("web1", path, s_none))).Error!.Detail;
        }
        catch (VmmApiException e)
        {
            detail = e.Problem.Detail;
        }

        Assert.Contains(problem, detail, StringComparison.Ordinal);
        Assert.Equal((VmState.Running, 0), ((await Vm).State, Worker.Undone));
    }

    [Fact]
    public async Task A_link_does_not_lead_a_save_out_of_the_storage_folders()
    {
        string outside = Directory.CreateTempSubdirectory("vmmd-outside-").FullName;
        try
        {
            Directory.CreateSymbolicLink(Path.Combine(_daemon.Folder, "link"), outside);
            JobInfo job = await EndAsync(await _daemon.Client.SaveAsync("web1", Path.Combine(_daemon.Folder, "link", "saved"), s_none));
            Assert.Contains("leads out of the storage folder", job.Error!.Detail, StringComparison.Ordinal);
            Assert.Empty(Directory.GetFileSystemEntries(outside));
        }
        finally
        {
            Directory.Delete(outside, recursive: true);
        }
    }

    [Fact]
    public async Task A_daemon_that_comes_after_a_cut_off_save_lets_the_vm_go_on_and_removes_what_was_written()
    {
        FakeWorker worker = Worker;
        await CutOffAsync(isWhole: false);
        Directory.CreateDirectory(Partial);
        await File.WriteAllTextAsync(Path.Combine(Partial, "vm.json"), "half");
        await _daemon.StartDaemonAsync();
        await UntilAsync(VmState.Running);
        Assert.Equal(1, worker.Undone);
        Assert.False(Directory.Exists(Folder) || Directory.Exists(Partial));
        Assert.Null((await Vm).SavedIn);
    }

    [Fact]
    public async Task A_daemon_that_comes_after_a_save_that_is_whole_ends_the_worker()
    {
        await CutOffAsync(isWhole: true);
        await _daemon.StartDaemonAsync();
        await UntilAsync(VmState.Saved);
        Assert.Empty(_daemon.Workers.Alive);
    }

    [Fact]
    public async Task A_lost_vm_whose_save_was_cut_off_leaves_no_folder()
    {
        await CutOffAsync(isWhole: false);
        _daemon.Workers.Alive.Clear();
        Directory.CreateDirectory(Partial);
        await _daemon.StartDaemonAsync();
        Assert.Equal(VmState.Failed, (await Vm).State);
        Assert.False(Directory.Exists(Partial));
    }

    [Fact]
    public async Task A_restore_that_fails_leaves_it_saved()
    {
        await SaveAsync();
        _daemon.Workers.RefuseLaunch = new WorkerException("saved-state-refused", "the MiB at 0 has not the content that was saved");
        JobInfo job = await EndAsync(await _daemon.Client.RestoreAsync(Folder, s_none));
        Assert.Contains("the MiB at 0", job.Error!.Detail, StringComparison.Ordinal);
        Assert.Equal((VmState.Saved, Folder), ((await Vm).State, (await Vm).SavedIn));
        _daemon.Workers.RefuseLaunch = null;
        Assert.Equal(JobState.Done, (await EndAsync(await _daemon.Client.RestoreAsync(Folder, s_none))).State);
    }

    [Fact]
    public async Task A_lazy_restore_is_told_while_it_goes_on_and_its_end_is_an_event()
    {
        await SaveAsync();
        JobInfo job = await EndAsync(await _daemon.Client.RestoreAsync(new RestoreRequest(Folder, Lazy: true), s_none));
        Assert.Equal(JobState.Done, job.State);
        Assert.Equal(["vm.json", "lazily"], Assert.Single(_daemon.Workers.Restores));
        Assert.True((await Vm).Restoring);
        MemoryRestoreInfo end = new(64 << 20, 0, 5 << 20, 1234);
        Worker.EndRestore(end);
        Worker.EndRestore(end); // a worker that was taken over
        Assert.Null((await Vm).Restoring);
        List<string?> told = [.. (await _daemon.Client.EventsOfAsync("web1", s_none)).Events
            .Where(each => each.Kind is "memory-restored").Select(each => each.Message)];
        Assert.Equal("all 64 MiB are there after 1234 ms, 5 MiB of them were waited for; the saved files are closed", Assert.Single(told));
    }

    [Fact]
    public async Task A_vm_whose_memory_others_have_is_not_restored_lazily_and_stays_saved()
    {
        await SaveAsync();
        string note = Path.Combine(Folder, "vmmd.json"), text = await File.ReadAllTextAsync(note);
        await File.WriteAllTextAsync(note, text.Replace("\"nets\":[]", "\"nets\":[{\"tap\":\"tap0\",\"vhost\":\"on\",\"queues\":1}]",
            StringComparison.Ordinal));
        JobInfo job = await EndAsync(await _daemon.Client.RestoreAsync(new RestoreRequest(Folder, Lazy: true), s_none));
        Assert.Equal("restore-not-lazy", job.Error!.Code);
        Assert.Contains("web1: nets[0].vhost: ", job.Error.Detail, StringComparison.Ordinal);
        Assert.Equal(VmState.Saved, (await Vm).State);
        Assert.Empty(_daemon.Workers.Restores);
    }

    [Fact]
    public async Task A_vmmd_that_comes_amid_a_lazy_restore_knows_of_it()
    {
        await SaveAsync();
        await EndAsync(await _daemon.Client.RestoreAsync(new RestoreRequest(Folder, Lazy: true), s_none));
        Worker.Restore = new MemoryRestoreInfo(64 << 20, 60 << 20, 0, 5);
        await _daemon.RestartAsync();
        for (int i = 0; i < 2000 && (await Vm).Restoring is null; i++)
        {
            await Task.Delay(10);
        }

        Assert.True((await Vm).Restoring);
        Assert.Equal(60UL << 20, (await _daemon.Client.StatsAsync("web1", s_none)).Restore!.LeftBytes);
        string metrics = await _daemon.GetAsync("/metrics");
        Assert.Contains("vmm_vm_restore_left_bytes{vm=\"web1\"} 62914560", metrics, StringComparison.Ordinal);
        Assert.Equal(VmState.Stopped, (await _daemon.Client.DoAsync("web1", "stop", s_none)).State);
        Assert.Null((await Vm).Restoring);
    }

    [Fact]
    public async Task A_saved_vm_is_not_changed_or_deleted_until_its_state_is_discarded()
    {
        await SaveAsync();
        Assert.Equal(
            "vm-saved", (await Assert.ThrowsAsync<VmmApiException>(() => _daemon.Client.DeleteAsync("web1", s_none))).Problem.Code);
        VmInfo now = await _daemon.Client.DoAsync("web1", "discard-saved", s_none);
        Assert.Equal((VmState.Stopped, null), (now.State, now.SavedIn));
        Assert.True(File.Exists(Path.Combine(Folder, "vm.json")));
        JobInfo job = await EndAsync(await _daemon.Client.RestoreAsync(Folder, s_none));
        Assert.Contains("is not saved", job.Error!.Detail, StringComparison.Ordinal);
        Assert.Equal(VmState.Running, (await _daemon.Client.DoAsync("web1", "start", s_none)).State);
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("")]
    [InlineData("{\"version\":2,\"id\":\"x\",\"name\":\"web1\",\"savedAt\":\"2026-01-01T00:00:00Z\",\"spec\":{}}")]
    [InlineData("{\"version\":1,\"id\":\"x\",\"name\":\"web1\",\"savedAt\":\"2026-01-01T00:00:00Z\",\"spec\":{\"cpus\":-1}}")]
    public async Task A_note_that_is_not_sound_is_refused_with_its_path(string note)
    {
        await SaveAsync();
        await File.WriteAllTextAsync(Path.Combine(Folder, "vmmd.json"), note);
        VmmApiException refused = await Assert.ThrowsAsync<VmmApiException>(() => _daemon.Client.RestoreAsync(Folder, s_none));
        Assert.Contains(Path.Combine(Folder, "vmmd.json"), refused.Problem.Detail, StringComparison.Ordinal);
        Assert.Equal(VmState.Saved, (await Vm).State);
    }

    /// <summary>The daemon is gone, and its record says that it was at a save.</summary>
    private async Task CutOffAsync(bool isWhole)
    {
        await _daemon.StopDaemonAsync();
        using VmInventory inventory = VmInventory.Open(Path.Combine(_daemon.Options.StateFolder, "inventory.db"));
        inventory.Vms.Update(inventory.Vms.All().Single() with { Saved = new SavedPlace(Folder, isWhole) });
        Assert.Equal(new SavedPlace(Folder, isWhole), inventory.Vms.All().Single().Saved);
    }

    private async Task<JobInfo> SaveAsync() => await EndAsync(await _daemon.Client.SaveAsync("web1", Folder, s_none));

    private async Task<JobInfo> EndAsync(JobInfo job)
    {
        JobInfo last = job;
        await foreach (JobInfo now in _daemon.Client.WatchJobAsync(job.Id, s_none))
        {
            last = now;
        }

        return last;
    }

    private async Task UntilAsync(VmState state)
    {
        for (int i = 0; i < 2000 && (await Vm).State != state; i++)
        {
            await Task.Delay(10);
        }

        Assert.Equal(state, (await Vm).State);
    }
}
