using System.Text;
using System.Text.Json;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Guests;
using Vmm.Daemon.Guests.Qemu;

namespace Vmm.Daemon.Tests.Guests;

/// <summary>Conversations with standard agents that answer, lie, flood, hang and hang up.</summary>
public sealed class QemuAgentTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task What_an_earlier_conversation_left_is_not_taken_for_an_answer()
    {
        await using FakeQemuAgent guest = new((command, _) => command is "guest-info" ? """{"return":{"version":"9.9"}}""" : null)
        {
            Stale =
            [
                .. "{\"return\":{\"version\":\"old\"}}\n"u8, 0xFF, .. "{\"return\": 5}\n{\"retu"u8, 0xFF, 0xFF, .. "{\"return\": 0}\n"u8,
            ],
        };
        using QemuAgent agent = await QemuAgent.OpenAsync(guest.Connect(), s_none);
        Assert.Equal("9.9", (await agent.AskAsync("guest-info", QemuJson.Default.QemuInfo, s_none)).Version);
    }

    [Fact]
    public async Task A_guest_tells_what_it_is_and_its_texts_are_fit_for_terminals()
    {
        await using FakeQemuAgent guest = new((command, _) => command switch
        {
            "guest-info" => """{"return":{"version":"1\u001b[2J","supported_commands":[null,"""
                + """{"name":"guest-fsfreeze-freeze","enabled":true}]}}""",
            "guest-get-host-name" => """{"return":{"host-name":"web\u202e1"}}""",
            "guest-get-osinfo" => """{"error":{"class":"CommandNotFound","desc":"no"}}""",
            "guest-network-get-interfaces" => """{"return":[{"name":"eth0","hardware-address":"52:54:00:00:00:01","ip-addresses":"""
                + """[{"ip-address":"192.0.2.7","ip-address-type":"ipv4","prefix":24},null]},null,{}]}""",
            "guest-get-fsinfo" => """{"return":[{"name":"vda1","mountpoint":"/","type":"ext4","used-bytes":"""
                + """5,"total-bytes":9,"disk":[]}]}""",
            _ => null,
        });
        using QemuAgent agent = await QemuAgent.OpenAsync(guest.Connect(), s_none);
        GuestFacts facts = await QemuFacts.AskAsync(agent, s_none);
        Assert.Equal(("1 [2J", "web 1", null), (facts.Agent, facts.HostName, facts.System));
        Assert.Equal(["eth0: 192.0.2.7/24", "?: "], facts.Interfaces.Select(i => $"{i.Name}: {string.Join(' ', i.Addresses)}"));
        Assert.Equal([new GuestFileSystem("/", "ext4", "vda1", 9, 5)], facts.FileSystems);
        Assert.True((await QemuFacts.AgentAsync(agent, s_none)).Freeze);
    }

    [Theory]
    [InlineData("{\"error\":{\"class\":\"GenericError\",\"desc\":\"no\\u001b right\"}}", QemuAgentFault.Refused, "refuses: no  right")]
    [InlineData("{\"error\":[1]}", QemuAgentFault.Refused, "does not say why")]
    [InlineData("{\"return\":[]}", QemuAgentFault.Unsound, "something else")]
    [InlineData("{\"return\":null}", QemuAgentFault.Unsound, "with nothing")]
    [InlineData("[1]", QemuAgentFault.Unsound, "nothing sound")]
    [InlineData("", QemuAgentFault.None, "went")]
    [InlineData("{\"return\":{\"version\":{\"version\":1}}}", QemuAgentFault.Unsound, "something else")]
    [InlineData("{\"return\":{\"version\":\"\\ud800\"}}", QemuAgentFault.Unsound, "something else")]
    [InlineData("deep", QemuAgentFault.Unsound, "nothing sound")]
    [InlineData("long", QemuAgentFault.Unsound, "more than 262144 bytes")]
    public async Task What_is_no_answer_is_told_in_one_safe_line(string answer, object fault, string why)
    {
        string said = answer switch
        {
            "deep" => "{\"return\":" + new string('[', 100_000) + new string(']', 100_000) + "}",
            "long" => new string(' ', 3 << 20) + "{\"return\":{}}",
            _ => answer,
        };
        await using FakeQemuAgent guest = new((command, _) => command is "guest-info" ? said : null);
        using QemuAgent agent = await QemuAgent.OpenAsync(guest.Connect(), s_none);
        QemuAgentException e = await Assert.ThrowsAsync<QemuAgentException>(
            () => agent.AskAsync("guest-info", QemuJson.Default.QemuInfo, s_none));
        Assert.Equal(fault, e.Fault);
        Assert.Contains(why, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(e.Message, char.IsControl);
    }

    [Fact]
    public async Task A_guest_that_floods_or_never_answers_is_given_up()
    {
        string flood = new('x', 1 << 20);
        await using FakeQemuAgent floods = new((_, _) => string.Concat(Enumerable.Repeat(flood + "\n", 40)));
        Assert.Equal(QemuAgentFault.Unsound,
            (await Assert.ThrowsAsync<QemuAgentException>(() => QemuAgent.OpenAsync(floods.Connect(), s_none))).Fault);
        await using FakeQemuAgent hangs = new((_, _) => "{\"return\": 1}"); // no sentinel, ever
        using CancellationTokenSource soon = new(TimeSpan.FromMilliseconds(200));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => QemuAgent.OpenAsync(hangs.Connect(), soon.Token));
    }

    [Fact]
    public async Task A_freeze_lasts_until_it_is_thawed()
    {
        await using FakeQemuAgent guest = new(Freezes(3, 3));
        bool over = false;
        GuestFreeze freeze = await GuestFreeze.BeginAsync(
            open => OpenAsync(guest, () => over = true, open), TimeSpan.FromSeconds(30), s_none);
        Assert.True(freeze.IsFrozen);
        Assert.Equal(new GuestQuiesce(QuiesceState.Frozen, 3), await freeze.EndAsync());
        Assert.True(over);
        Assert.Equal(["guest-sync-delimited", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"], guest.Asked.Take(3));
    }

    [Fact]
    public async Task A_freeze_that_lasts_too_long_is_thawed_and_told_of()
    {
        await using FakeQemuAgent guest = new(Freezes(3, 3));
        await using GuestFreeze freeze = await GuestFreeze.BeginAsync(
            open => OpenAsync(guest, () => { }, open), TimeSpan.FromSeconds(1), s_none);
        Assert.True(SpinWait.SpinUntil(() => Has(guest, "guest-fsfreeze-thaw"), 20_000));
        GuestQuiesce result = await freeze.EndAsync();
        Assert.Equal(QuiesceState.TooLate, result.State);
        Assert.Contains("its limit was 1 s", result.Why, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{\"error\":{\"desc\":\"disabled\"}}", QuiesceState.Refused, "disabled")]
    [InlineData("{\"return\":0}", QuiesceState.Refused, "nothing sound")]
    [InlineData("{\"return\":-1}", QuiesceState.Refused, "nothing sound")]
    [InlineData("{\"return\":99999999}", QuiesceState.Refused, "nothing sound")]
    [InlineData("{}", QuiesceState.Refused, "nothing sound")]
    [InlineData(null, QuiesceState.TooLate, "within 1 s")]
    public async Task A_guest_that_does_not_freeze_is_thawed_all_the_same(string? answer, QuiesceState state, string why)
    {
        await using FakeQemuAgent guest = new((command, _) => command is "guest-fsfreeze-freeze" ? answer : null);
        await using (GuestFreeze freeze = await GuestFreeze.BeginAsync(
            open => OpenAsync(guest, () => { }, open), TimeSpan.FromSeconds(1), s_none))
        {
            Assert.Equal(state, freeze.Result.State);
            Assert.Contains(why, freeze.Result.Why, StringComparison.Ordinal);
        }

        Assert.True(SpinWait.SpinUntil(() => Has(guest, "guest-fsfreeze-thaw"), 20_000)); // the stream's last words
    }

    [Fact]
    [Trait("Kind", "fuzz")]
    public void Damaged_answers_are_refused_or_keep_their_shape()
    {
        byte[] sound = [.. """{"return":[{"name":"eth0","ip-addresses":[{"ip-address":"192.0.2.7","prefix":24}]}],"id":7}"""u8];
        Random random = new(4);
        for (int i = 0; i < 20_000; i++)
        {
            byte[] line = [.. sound];
            for (int flips = random.Next(1, 6); flips > 0; flips--)
            {
                line[random.Next(line.Length)] = random.Next(3) == 0 ? (byte)random.Next(256) : sound[random.Next(sound.Length)];
            }

            try
            {
                JsonElement value = QemuAnswer.Read(line.AsMemory(0, random.Next(4) == 0 ? random.Next(line.Length) : line.Length));
                _ = QemuAnswer.As(value, QemuJson.Default.Interfaces);
            }
            catch (QemuAgentException e)
            {
                Assert.DoesNotContain(e.Message, char.IsControl);
            }
        }
    }

    internal static Func<string, JsonElement, string?> Freezes(int frozen, int thawed) => (command, _) => command switch
    {
        "guest-fsfreeze-freeze" => $"{{\"return\":{frozen}}}",
        "guest-fsfreeze-thaw" => $"{{\"return\":{thawed}}}",
        _ => null,
    };

    private static bool Has(FakeQemuAgent guest, string command)
    {
        lock (guest.Asked)
        {
            return guest.Asked.Contains(command);
        }
    }

    private static async Task<IFreezingAgent?> OpenAsync(FakeQemuAgent guest, Action ended, CancellationToken cancellation) =>
        new QemuFreezer(await QemuAgent.OpenAsync(guest.Connect(QemuAgent.Thaw), cancellation), ended);
}
