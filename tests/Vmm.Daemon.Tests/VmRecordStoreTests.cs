using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Logging.Abstractions;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Vms;
using Vmm.LifeCycle;
using Vmm.Spec;

namespace Vmm.Daemon.Tests;

/// <summary>The record of a VM in memory and on the disk.</summary>
public sealed class VmRecordStoreTests : IDisposable
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-s-").FullName;

    private string Database => Path.Combine(_folder, "inventory.db");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_change_is_read_at_once_and_written_by_the_next_commit_or_with_the_next_spec()
    {
        using VmInventory inventory = VmInventory.Open(Database);
        VmRecordStore store = Add(inventory.Vms);
        store.Change(record => record with { WantedOn = true });
        Assert.True(store.Record.WantedOn);
        Assert.False(inventory.Vms.All().Single().WantedOn);
        store.WriteSpec("name: x\ncpus: 2", new VmSpec { Cpus = 2 });
        Assert.Equal(
            (true, 2, "name: x\ncpus: 2", 2),
            (
                inventory.Vms.All().Single().WantedOn,
                inventory.Vms.All().Single().Revision,
                inventory.Vms.All().Single().Spec,
                store.Spec!.Cpus));
        store.Change(record => record with { WantedOn = false, LastExit = new WorkerExit(ExitReason.PowerOff, 0, null) });
        store.Commit();
        Assert.Equal(store.Record, inventory.Vms.All().Single());
    }

    [Fact]
    public void A_commit_that_fails_is_made_by_the_next_one_and_a_spec_that_was_not_written_is_not_there()
    {
        using VmInventory inventory = VmInventory.Open(Database);
        VmRecordStore store = Add(inventory.Vms);
        Execute("CREATE TRIGGER full BEFORE UPDATE ON vm BEGIN SELECT RAISE(ABORT, 'full'); END;");
        store.Change(record => record with { WantedOn = true });
        Assert.Throws<SqliteException>(store.Commit);
        Assert.Throws<SqliteException>(() => store.WriteSpec("name: y", new VmSpec { Cpus = 2 }));
        Assert.Equal((true, 1, 1), (store.Record.WantedOn, store.Record.Revision, store.Spec!.Cpus));
        Execute("DROP TRIGGER full;");
        store.Commit();
        Assert.Equal(store.Record, inventory.Vms.All().Single());
    }

    [Fact]
    public void Nothing_is_written_of_a_record_that_is_removed()
    {
        using VmInventory inventory = VmInventory.Open(Database);
        VmRecordStore store = Add(inventory.Vms);
        store.Change(record => record with { WantedOn = true }); // the end of a run, say, whose commit comes late
        store.Remove();
        store.Commit();
        store.WriteSpec("name: y", new VmSpec());
        Assert.Empty(inventory.Vms.All());
    }

    /// <summary>Another process has the inventory locked, or the disk is slow: only what must be written waits.</summary>
    [Fact]
    public async Task A_start_that_waits_for_its_commit_keeps_nobody_from_seeing_the_vms()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        await daemon.CreateAsync("web1");
        await using SqliteConnection other = new($"Data Source={Path.Combine(daemon.Options.StateFolder, "inventory.db")};Pooling=False");
        other.Open();
        Execute(other, "BEGIN IMMEDIATE;");
        Task<VmInfo> start = daemon.Client.DoAsync("web1", "start", s_none);
        VmInfo seen = await daemon.Client.ShowAsync("web1", s_none).WaitAsync(TimeSpan.FromSeconds(10));
        while (seen.State == VmState.Defined)
        {
            seen = await daemon.Client.ShowAsync("web1", s_none).WaitAsync(TimeSpan.FromSeconds(10));
        }

        Assert.Equal((VmState.Starting, false), (seen.State, start.IsCompleted));
        Assert.Single((await daemon.Client.ListAsync(s_none).WaitAsync(TimeSpan.FromSeconds(10))).Vms);
        Execute(other, "ROLLBACK;");
        Assert.Equal(VmState.Running, (await start).State);
    }

    private static VmRecordStore Add(VmTable inventory)
    {
        VmRecord record = new(Guid.NewGuid().ToString(), "x", "name: x\nboot:\n  kernel: /k\n", "", 1, WantedOn: false, LastExit: null);
        inventory.Add(record);
        return new VmRecordStore(record, inventory, NullLogger.Instance);
    }

    private void Execute(string sql)
    {
        using SqliteConnection database = new($"Data Source={Database};Pooling=False");
        database.Open();
        Execute(database, sql);
    }

#pragma warning disable CA2100 // Every text is a constant of this file.
    private static void Execute(SqliteConnection database, string sql)
    {
        using SqliteCommand command = new(sql, database);
        command.ExecuteNonQuery();
    }
#pragma warning restore CA2100
}
