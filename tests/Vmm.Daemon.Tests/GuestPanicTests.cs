using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Tests;

/// <summary>A guest whose kernel panics: what is told, and what its spec makes of it.</summary>
public sealed class GuestPanicTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;
    private static readonly WorkerExit s_panicked = new(ExitReason.GuestPanicked, 1, "the guest's kernel panicked");

    [Fact]
    public async Task By_default_it_ends_as_crashed_and_can_be_started_again()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        FakeWorker worker = await StartAsync(daemon, "");
        worker.Tell(GuestEvent.Panicked);
        worker.End(s_panicked);
        Assert.Equal(VmState.Crashed, await daemon.StateSoonAsync("web1", VmState.Crashed));
        VmInfo vm = await daemon.Client.ShowAsync("web1", s_none);
        Assert.Equal((ExitReason.GuestPanicked, null, 0), (vm.LastExit!.Reason, vm.WorkerProcessId, vm.Restarts));
        EventList events = await daemon.Client.EventsOfAsync("web1", s_none);
        Assert.Equal(["created", "state", "state", "guest-panicked", "state", "ended"], events.Events.Select(e => e.Kind));
        await daemon.RestartAsync();
        Assert.Equal(VmState.Crashed, (await daemon.Client.ShowAsync("web1", s_none)).State); // it is known still
        Assert.Equal(VmState.Running, (await daemon.Client.DoAsync("web1", "start", s_none)).State);
    }

    [Theory]
    [InlineData("restart: on-failure\n")]
    [InlineData("onCrash: restart\n")]
    public async Task It_is_started_again_when_the_spec_says_so(string spec)
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        FakeWorker worker = await StartAsync(daemon, spec);
        worker.Tell(GuestEvent.Panicked);
        worker.End(s_panicked);
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(20));
        while ((await daemon.Client.ShowAsync("web1", limit.Token)).Restarts == 0) // "running" is also what it was before its end
        {
            await Task.Delay(10, limit.Token);
        }

        Assert.Equal(VmState.Running, await daemon.StateSoonAsync("web1", VmState.Running));
        Assert.Equal(1, (await daemon.Client.ShowAsync("web1", s_none)).Restarts);
    }

    [Fact]
    public async Task A_preserved_one_is_crashed_with_its_worker_until_it_is_stopped()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        FakeWorker worker = await StartAsync(daemon, "onCrash: preserve\nrestart: always\n");
        worker.Preserve();
        Assert.Equal(VmState.Crashed, await daemon.StateSoonAsync("web1", VmState.Crashed));
        foreach (string verb in (string[])["start", "pause", "resume", "power-button"])
        {
            Assert.Equal(
                "wrong-state", (await Assert.ThrowsAsync<VmmApiException>(() => daemon.Client.DoAsync("web1", verb, s_none))).Problem.Code);
        }

        Assert.Equal(
            "wrong-state", (await Assert.ThrowsAsync<VmmApiException>(() => daemon.Client.DeleteAsync("web1", s_none))).Problem.Code);
        await daemon.RestartAsync(); // the next daemon adopts it as it is
        VmInfo adopted = await daemon.Client.ShowAsync("web1", s_none);
        Assert.Equal((VmState.Crashed, worker.ProcessId), (adopted.State, adopted.WorkerProcessId));
        VmInfo stopped = await daemon.Client.StopAsync("web1", TimeSpan.FromSeconds(60), s_none); // at once: nobody heeds its button
        Assert.Equal((VmState.Stopped, ExitReason.Stopped, 0), (stopped.State, stopped.LastExit!.Reason, worker.PowerButtonPresses));
    }

    [Fact]
    public async Task A_crash_kernel_is_told_of_and_the_vm_goes_on()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        FakeWorker worker = await StartAsync(daemon, "onCrash: preserve\n");
        for (int i = 0; i < 100; i++)
        {
            worker.Tell(GuestEvent.CrashKernel); // one that was taken over may repeat it
            worker.Tell((GuestEvent)77);
        }

        Assert.Equal(VmState.Running, (await daemon.Client.ShowAsync("web1", s_none)).State);
        EventList events = await daemon.Client.EventsOfAsync("web1", s_none);
        Assert.Equal(["created", "state", "state", "guest-crash-kernel"], events.Events.Select(e => e.Kind));
    }

    private static async Task<FakeWorker> StartAsync(DaemonFixture daemon, string spec)
    {
        await daemon.CreateAsync("web1", spec);
        await daemon.Client.DoAsync("web1", "start", s_none);
        return daemon.Workers.Alive.Values.Single();
    }
}
