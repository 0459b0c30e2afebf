using Microsoft.Data.Sqlite;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Memory;

namespace Vmm.Daemon.Tests;

/// <summary>The resident limit of a running VM.</summary>
public sealed class ResidentLimitTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task A_limit_is_changed_in_the_worker_and_in_the_spec_and_told_of()
    {
        await using DaemonFixture daemon = await StartAsync();
        VmMemory now = await daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(Resident: "50%"), TimeSpan.Zero, s_none);
        FakeWorker worker = daemon.Workers.Alive.Values.Single();
        Assert.Equal((ulong)ByteSize.MiB(256), worker.Resident);
        Assert.Equal((ulong)ByteSize.MiB(256), now.Paging!.LimitBytes);
        Assert.Contains("resident: 50%", await daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
        Assert.Contains("50%, 256MiB", Assert.Single(await EventsAsync(daemon, "resident-limit")), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("much", 422, "memory-impossible")]
    [InlineData("1MiB", 422, "spec-invalid")]
    [InlineData("2GiB", 422, "spec-invalid")]
    public async Task A_limit_that_cannot_be_changes_nothing(string wish, int status, string code)
    {
        await using DaemonFixture daemon = await StartAsync();
        VmmApiException refused = await Assert.ThrowsAsync<VmmApiException>(
            () => daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(Resident: wish), TimeSpan.Zero, s_none));
        Assert.Equal((status, code), (refused.Problem.Status, refused.Problem.Code));
        Assert.Null(daemon.Workers.Alive.Values.Single().Resident);
    }

    [Fact]
    public async Task A_limit_that_cannot_be_written_down_is_not_in_force_either()
    {
        await using DaemonFixture daemon = await StartAsync();
        await using (SqliteConnection inventory = new($"Data Source={daemon.Options.StateFolder}/inventory.db"))
        {
            await inventory.OpenAsync(s_none);
            await using SqliteCommand refuse = inventory.CreateCommand();
            refuse.CommandText = "CREATE TRIGGER refuse BEFORE UPDATE ON vm BEGIN SELECT RAISE(ABORT, 'full'); END";
            _ = await refuse.ExecuteNonQueryAsync(s_none);
        }

        VmmApiException refused = await Assert.ThrowsAsync<VmmApiException>(
            () => daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(Resident: "50%"), TimeSpan.Zero, s_none));
        Assert.Equal(500, refused.Problem.Status);
        Assert.Equal((ulong)ByteSize.MiB(128), daemon.Workers.Alive.Values.Single().Resident);
        Assert.Contains("resident: 25%", await daemon.Client.SpecAsync("web1", s_none), StringComparison.Ordinal);
    }

    [Fact]
    public void A_full_state_folder_is_told_as_what_it_is()
    {
        Problem full = DaemonFault.ToProblem(new SqliteException("database or disk is full", 13), "the log has it");
        Assert.Equal((507, "no-space"), (full.Status, full.Code));
        Problem other = DaemonFault.ToProblem(new SqliteException("disk I/O error", 10), "the log has it");
        Assert.Equal((500, "the log has it"), (other.Status, other.Detail));
    }

    [Fact]
    public async Task A_VM_without_a_limit_gets_none_while_it_runs()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "");
        await daemon.Client.DoAsync("web1", "start", s_none);
        VmmApiException refused = await Assert.ThrowsAsync<VmmApiException>(
            () => daemon.Client.ChangeMemoryAsync("web1", new MemoryWish(Resident: "50%"), TimeSpan.Zero, s_none));
        Assert.Equal((409, "no-resident-limit"), (refused.Problem.Status, refused.Problem.Code));
    }

    [Fact]
    public async Task What_stops_and_goes_on_is_told_once_each()
    {
        await using DaemonFixture daemon = await StartAsync();
        FakeWorker worker = daemon.Workers.Alive.Values.Single();
        worker.StopPaging("the swap file is full");
        worker.StopPaging("the swap file is full");
        worker.StopPaging(null);
        Assert.Contains("the swap file is full", Assert.Single(await EventsAsync(daemon, "paging-stopped")), StringComparison.Ordinal);
        Assert.Equal(["pages go out again"], await EventsAsync(daemon, "paging-goes-on"));
    }

    private static async Task<DaemonFixture> StartAsync()
    {
        DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1", "memory: {size: 512MiB, resident: 25%}\n");
        await daemon.Client.DoAsync("web1", "start", s_none);
        return daemon;
    }

    private static async Task<List<string>> EventsAsync(DaemonFixture daemon, string kind) =>
        [.. (await daemon.Client.EventsOfAsync("web1", s_none)).Events
            .Where(e => string.Equals(e.Kind, kind, StringComparison.Ordinal)).Select(e => e.Message!)];
}
