using System.Text;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Tests.Guests;

/// <summary>The standard agent over REST: a daemon, a fake worker, and an agent as the test says.</summary>
public sealed class StandardAgentTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task A_command_runs_in_the_guest_and_its_output_comes_back()
    {
        int looks = 0;
        string? asked = null;
        await using FakeQemuAgent guest = new((command, arguments) =>
        {
            if (command is "guest-exec")
            {
                asked = arguments.GetRawText();
                return """{"return":{"pid":7}}""";
            }

            return command is not "guest-exec-status" ? null
                : looks++ < 2 ? """{"return":{"exited":false}}"""
                : """{"return":{"exited":true,"exitcode":3,"out-data":"aGkbCg==","err-data":"bm8K","out-truncated":true}}""";
        });
        await using DaemonFixture daemon = await StartAsync(guest);
        GuestExecResult result = await daemon.Client.ExecAsync("web1", new GuestExecWish(["ls", "-l", "a b"], "in"u8.ToArray(), 9), s_none);
        Assert.Equal((3, null, "hi\u001b\n", "no\n", true), (result.ExitCode, result.Signal, Encoding.UTF8.GetString(result.Output),
            Encoding.UTF8.GetString(result.Errors), result.Truncated));
        Assert.Equal("""{"path":"ls","arg":["-l","a b"],"input-data":"aW4=","capture-output":true}""", asked);
    }

    [Fact]
    public async Task A_command_that_goes_on_leaves_the_agent_to_others_and_is_told_of_when_its_time_is_over()
    {
        await using FakeQemuAgent guest = new((command, _) => command switch
        {
            "guest-exec" => """{"return":{"pid":7}}""",
            "guest-exec-status" => """{"return":{"exited":false}}""",
            "guest-info" => """{"return":{"version":"9"}}""",
            "guest-sync-delimited" => null,
            _ => """{"error":{"desc":"no"}}""",
        });
        await using DaemonFixture daemon = await StartAsync(guest);
        Task<GuestExecResult> running = daemon.Client.ExecAsync("web1", new GuestExecWish(["sleep", "9"], Seconds: 1), s_none);
        Assert.Equal("9", (await daemon.Client.GuestAsync("web1", s_none)).Agent);
        Problem late = await DaemonFixture.RefusedAsync(() => running);
        Assert.Equal("agent-silent", late.Code);
        Assert.Contains("runs on in the guest as process 7", late.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_fails_has_a_code()
    {
        await using FakeQemuAgent guest = new((command, _) =>
            command is "guest-sync-delimited" ? null : """{"error":{"class":"CommandNotFound","desc":"has been disabled"}}""");
        await using DaemonFixture daemon = await StartAsync(guest);
        Assert.Equal("agent-refused", (await RefusedAsync(daemon, "true")).Code);
        Assert.Equal("exec-invalid", (await RefusedAsync(daemon, "")).Code);
        Assert.Equal("exec-invalid", (await RefusedAsync(daemon, "a\0b")).Code);
        Assert.Equal("exec-invalid", (await RefusedAsync(daemon, [.. Enumerable.Repeat("a", 257)])).Code);
        Assert.Equal("exec-invalid", (await RefusedAsync(daemon, new string('a', 65537))).Code);
        daemon.Workers.Alive.Values.Single().Agent = null;
        Assert.Equal("no-agent", (await RefusedAsync(daemon, "true")).Code);
        await daemon.Client.DoAsync("web1", "pause", s_none);
        Problem paused = await RefusedAsync(daemon, "true");
        Assert.Contains("paused: its guest cannot answer", paused.Detail, StringComparison.Ordinal);
        await daemon.CreateAsync("web2", "");
        await daemon.Client.DoAsync("web2", "start", s_none);
        Assert.Contains("guestAgent: true", (await DaemonFixture.RefusedAsync(() => daemon.Client.GuestAsync("web2", s_none))).Detail,
            StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_snapshot_freezes_by_the_standard_agent()
    {
        await using FakeQemuAgent guest = new(QemuAgentTests.Freezes(2, 2));
        await using DaemonFixture daemon = await StartAsync(guest);
        GuestQuiesce result;
        Daemon.Vms.VmGuestAgent agent = daemon.Host.Vms.Get("web1").Agent;
        await using (Daemon.Guests.GuestFreeze freeze = await agent.FreezeAsync(TimeSpan.FromSeconds(20), s_none))
        {
            Assert.True(freeze.IsFrozen);
            result = await freeze.EndAsync();
        }

        Assert.Equal(new GuestQuiesce(QuiesceState.Frozen, 2), result);
        Assert.False((await daemon.Client.AgentAsync("web1", s_none)).Answers); // this one does not answer guest-info
    }

    private static async Task<DaemonFixture> StartAsync(FakeQemuAgent guest)
    {
        DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "guestAgent: true\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        daemon.Workers.Alive.Values.Single().Agent = guest.Connect;
        return daemon;
    }

    private static Task<Problem> RefusedAsync(DaemonFixture daemon, params string[] command) =>
        DaemonFixture.RefusedAsync(() => daemon.Client.ExecAsync("web1", new GuestExecWish(command), s_none));
}
