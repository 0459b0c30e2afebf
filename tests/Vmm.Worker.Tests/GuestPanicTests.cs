using Vmm.Contracts.Control;
using Vmm.Daemon.Workers;
using Vmm.LifeCycle;
using Vmm.Spec;
using Vmm.Testing;

namespace Vmm.Worker.Tests;

/// <summary>A confined worker whose guest panics tells it, and does what its spec says.</summary>
[Trait("Tier", "kvm")]
public sealed class GuestPanicTests
{
    private static CancellationToken Soon => new CancellationTokenSource(TimeSpan.FromSeconds(60)).Token;

    [KvmFact]
    public async Task A_panic_ends_the_vm_by_its_name_and_is_told_before()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(SpecOf(""));
        TaskCompletionSource<GuestEvent> told = new(TaskCreationOptions.RunContinuationsAsynchronously);
        worker.OnGuestEvent(what => told.TrySetResult(what));
        await worker.StartAsync(Soon);
        WorkerExit exit = await worker.Ended.WaitAsync(Soon);
        Assert.Equal((ExitReason.GuestPanicked, 1), (exit.Reason, exit.ExitCode));
        Assert.Equal(GuestEvent.Panicked, await told.Task.WaitAsync(Soon));
    }

    [KvmFact]
    public async Task A_panic_that_is_preserved_leaves_a_worker_that_can_be_asked_until_it_is_stopped()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(SpecOf("") with { OnCrash = CrashPolicy.Preserve });
        TaskCompletionSource crashed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        using IDisposable watch = worker.OnStateChanged(state =>
        {
            if (state == VmState.Crashed)
            {
                crashed.TrySetResult();
            }
        });
        await worker.StartAsync(Soon);
        await crashed.Task.WaitAsync(Soon);
        Assert.Equal("wrong-state", (await Assert.ThrowsAsync<WorkerException>(() => worker.ResumeAsync(Soon))).Code);
        long exits = (await worker.GetStatsAsync(Soon)).Exits;
        await Task.Delay(100);
        Assert.Equal(exits, (await worker.GetStatsAsync(Soon)).Exits);
        await worker.StopAsync(Soon);
        Assert.Equal(ExitReason.Stopped, (await worker.Ended.WaitAsync(Soon)).Reason);
    }

    [KvmFact]
    public async Task A_crash_kernel_is_told_of_and_the_guest_goes_on()
    {
        await using WorkerFixture fixture = new();
        IWorker worker = await fixture.LaunchAsync(SpecOf("event=2"));
        TaskCompletionSource<GuestEvent> told = new(TaskCreationOptions.RunContinuationsAsynchronously);
        worker.OnGuestEvent(what => told.TrySetResult(what));
        await worker.StartAsync(Soon);
        Assert.Equal(ExitReason.Reset, (await worker.Ended.WaitAsync(Soon)).Reason);
        Assert.Equal(GuestEvent.CrashKernel, await told.Task.WaitAsync(Soon));
    }

    private static VmSpec SpecOf(string words) => WorkerFixture.SpecOf("panic", words);
}
