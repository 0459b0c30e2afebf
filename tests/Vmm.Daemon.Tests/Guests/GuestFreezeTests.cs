using System.Globalization;
using System.Text;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Guests;
using Vmm.Daemon.Vms;
using Vmm.LifeCycle;

namespace Vmm.Daemon.Tests.Guests;

/// <summary>Guests that freeze, and those that refuse, lie, hang, flood and hang up.</summary>
public sealed class GuestFreezeTests : IDisposable
{
    private const string Frozen = "{\"v\":1,\"frozen\":3,\"left\":1}\n";
    private static readonly TimeSpan s_second = TimeSpan.FromSeconds(1);
    private static readonly CancellationToken s_none = CancellationToken.None;
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-freeze-").FullName;

    private string Socket => Path.Combine(_folder, "v");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task A_guest_is_frozen_until_it_is_thawed()
    {
        await using FakeGuest guest = new(Socket, Says("{\"v\":1,\"thawed\":3,\"late\":false}\n"));
        GuestFreeze freeze = await GuestFreeze.BeginAsync(Socket, TimeSpan.FromSeconds(30), s_none);
        Assert.True(freeze.IsFrozen);
        GuestQuiesce result = await freeze.EndAsync();
        Assert.Equal(new GuestQuiesce(QuiesceState.Frozen, 3, 1), result);
        Assert.Equal("quiesced: 3 file systems (1 cannot be frozen)", result.Describe());
        Assert.Equal(["CONNECT 1028", "{\"v\":1,\"freeze\":{\"seconds\":30}}", "{\"v\":1,\"thaw\":true}"], guest.Asked);
        Assert.Equal(result, await freeze.EndAsync());
        Assert.Equal(3, guest.Asked.Count); // once
    }

    [Theory]
    [InlineData("{\"v\":1,\"error\":\"cannot freeze /a: I/O error\"}\n", QuiesceState.Refused, "cannot freeze /a: I/O error")]
    [InlineData("{\"v\":1,\"error\":\"\\u001b[2Jboo\"}\n", QuiesceState.Refused, " [2Jboo")]
    [InlineData("{\"v\":1,\"error\":\"not understood\"}\n", QuiesceState.Refused, "too old")]
    [InlineData("{\"v\":1,\"frozen\":0,\"left\":3}\n", QuiesceState.Refused, "nothing sound")]
    [InlineData("{\"v\":1,\"frozen\":-1}\n", QuiesceState.Refused, "nothing sound")]
    [InlineData("{\"v\":1,\"frozen\":2000000000}\n", QuiesceState.Refused, "nothing sound")]
    [InlineData("{\"v\":1,\"frozen\":99999999999999}\n", QuiesceState.Refused, "nothing sound")]
    [InlineData("{\"v\":2,\"frozen\":1}\n", QuiesceState.Refused, "nothing sound")]
    [InlineData("[[[[[[[[[[\n", QuiesceState.Refused, "nothing sound")]
    [InlineData("null\n", QuiesceState.Refused, "nothing sound")]
    [InlineData("", QuiesceState.Refused, "nothing sound")]
    [InlineData("flood", QuiesceState.Refused, "nothing sound")]
    [InlineData(null, QuiesceState.TooLate, "within 1 s")]
    public async Task A_guest_that_does_not_freeze_is_told_of_and_its_connection_ends(string? answer, QuiesceState state, string why)
    {
        await using FakeGuest guest =
            new(Socket, line => line.Contains("freeze") ? answer is "flood" ? new string('x', 1 << 20) : answer : null);
        GuestFreeze freeze = await GuestFreeze.BeginAsync(Socket, s_second, s_none);
        await guest.HungUp.WaitAsync(TimeSpan.FromSeconds(60)); // by which it thaws, whatever it did
        Assert.Equal(state, (await freeze.EndAsync()).State);
        Assert.Contains(why, freeze.Result.Why, StringComparison.Ordinal);
        Assert.DoesNotContain("thaw", string.Concat(guest.Asked), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{\"v\":1,\"thawed\":3,\"late\":true}\n", "thawed by itself")]
    [InlineData("{\"v\":1,\"thawed\":2,\"late\":false}\n", "thawed 2 of 3")]
    [InlineData("{\"v\":1,\"error\":\"cannot thaw /a\"}\n", "cannot thaw /a")]
    [InlineData("nonsense\n", "did not say")]
    [InlineData("flood", "did not say")]
    [InlineData("", "did not say")]
    public async Task A_freeze_that_did_not_last_is_none(string answer, string why)
    {
        await using FakeGuest guest = new(Socket, Says(answer is "flood" ? new string('x', 1 << 20) : answer));
        GuestFreeze freeze = await GuestFreeze.BeginAsync(Socket, TimeSpan.FromSeconds(30), s_none);
        GuestQuiesce result = await freeze.EndAsync();
        Assert.Equal(QuiesceState.TooLate, result.State);
        Assert.Contains(why, result.Describe(), StringComparison.Ordinal);
        await guest.HungUp.WaitAsync(TimeSpan.FromSeconds(60));
    }

    [Fact]
    public async Task Our_clock_decides_whether_it_was_in_time()
    {
        await using FakeGuest guest = new(Socket, Says("{\"v\":1,\"thawed\":3,\"late\":false}\n"));
        await using GuestFreeze freeze = await GuestFreeze.BeginAsync(Socket, s_second, s_none);
        await Task.Delay(s_second * 1.2);
        Assert.Equal(QuiesceState.TooLate, (await freeze.EndAsync()).State);
    }

    [Fact]
    public async Task A_guest_that_does_not_answer_the_thaw_is_hung_up_on()
    {
        await using FakeGuest guest = new(Socket, line => line.Contains("freeze") ? Frozen : null);
        GuestFreeze freeze = await GuestFreeze.BeginAsync(Socket, TimeSpan.FromSeconds(30), s_none);
        Assert.Equal(QuiesceState.TooLate, (await freeze.EndAsync()).State);
        await guest.HungUp.WaitAsync(TimeSpan.FromSeconds(60));
    }

    [Fact]
    public async Task Who_gives_up_lets_the_guest_go()
    {
        await using FakeGuest guest = new(Socket);
        using CancellationTokenSource cancel = new();
        Task<GuestFreeze> begun = GuestFreeze.BeginAsync(Socket, TimeSpan.FromSeconds(60), cancel.Token);
        while (guest.Asked.Count < 2)
        {
            await Task.Delay(10);
        }

        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => begun);
        await guest.HungUp.WaitAsync(TimeSpan.FromSeconds(60));
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("NO\n")]
    public async Task Nobody_there_is_no_agent(string? welcome)
    {
        Assert.Equal(QuiesceState.NoAgent, (await GuestFreeze.BeginAsync(Socket, s_second, s_none)).Result.State); // no socket
        await using FakeGuest guest = new(Socket, line => welcome ?? "x"); // which is no whole line
        Assert.Equal(QuiesceState.NoAgent, (await GuestFreeze.BeginAsync(Socket, s_second, s_none)).Result.State);
        await guest.HungUp.WaitAsync(TimeSpan.FromSeconds(60));
    }

    [Fact]
    public async Task A_vm_tells_of_its_agent()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", $"vsock: {{cid: 7, path: {Socket}}}\n");
        Assert.Equal("wrong-state", (await DaemonFixture.RefusedAsync(() => daemon.Client.AgentAsync("web1", s_none))).Code);
        await daemon.Client.DoAsync("web1", "start", s_none);
        Assert.Equal(
            new GuestAgentInfo(false, Why: "no agent listens in the guest"), await daemon.Client.AgentAsync("web1", s_none));
        string answer = "{\"v\":1,\"agent\":\"1.1\",\"memory\":true,\"freeze\":false,\"why\":\"no\\nright\"}\n";
        await using (FakeGuest guest = new(Socket, line => line.Contains("agent") ? answer : null))
        {
            Assert.False((await daemon.Client.AgentAsync("web1", s_none)).Answers); // held for a second: no guest is asked too often
            Assert.Empty(guest.Asked);
            await Task.Delay(s_second * 1.2);
            Assert.Equal(new GuestAgentInfo(true, "1.1", true, false, "no right"), await daemon.Client.AgentAsync("web1", s_none));
            await Task.Delay(s_second * 1.2);
            answer = "{\"v\":1,\"error\":\"not understood\"}\n";
            Assert.Equal("1.0", (await daemon.Client.AgentAsync("web1", s_none)).Version);
            await Task.Delay(s_second * 1.2);
            answer = "{}\n";
            Assert.False((await daemon.Client.AgentAsync("web1", s_none)).Answers);
        }

        ManagedVm vm = daemon.Host.Vms.Get("web1");
        await daemon.Client.DoAsync("web1", "pause", s_none);
        GuestQuiesce paused = (await vm.Agent.FreezeAsync(s_second, s_none)).Result;
        Assert.Equal((QuiesceState.Refused, "not quiesced: the VM is paused: its guest cannot answer"), (paused.State, paused.Describe()));
        await daemon.CreateAsync("web2", "");
        Assert.Equal(
            QuiesceState.NoAgent, (await daemon.Host.Vms.Get("web2").Agent.FreezeAsync(s_second, s_none)).Result.State);
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Damaged_answers_are_refused_or_keep_their_bounds()
    {
        int iterations = int.Parse(Environment.GetEnvironmentVariable("VMM_FUZZ_ITERATIONS") ?? "20000", CultureInfo.InvariantCulture),
            taken = 0;
        byte[] good =
        [
            .. "{\"v\":1,\"error\":\"a\",\"agent\":\"b\",\"freeze\":true,\"frozen\":12,"u8, .. "\"left\":3,\"thawed\":4,\"late\":true}"u8
        ];
        Random random = new(14);
        for (int i = 0; i < iterations; i++)
        {
            byte[] line = [.. good];
            for (int k = random.Next(1, 4); k > 0; k--)
            {
                line[random.Next(line.Length)] = random.Next(2) == 0
                    ? (byte)random.Next(256)
                    : (byte)"0123456789{}[],:.-eE\"\\"[random.Next(22)];
            }

            if (AgentAnswer.TryRead(line.AsSpan(0, random.Next(8) == 0 ? random.Next(line.Length) : line.Length)) is { } answer)
            {
                taken++;
                Assert.All([answer.Frozen, answer.Left, answer.Thawed], n => Assert.InRange(n, 0, 4096));
                Assert.True((answer.Error ?? "").All(c => !char.IsControl(c)), answer.Error);
            }
        }

        Assert.True(taken > 0);
        byte[] longText = Encoding.ASCII.GetBytes($"{{\"v\":1,\"error\":\"{new string('e', 9000)}\"}}");
        Assert.Equal(300, AgentAnswer.TryRead(longText)!.Error!.Length);
    }

    private static Func<string, string?> Says(string thaw) =>
        line => line.Contains("\"freeze\"") ? Frozen : line.Contains("\"thaw\"") ? thaw : null;
}
