using Microsoft.Data.Sqlite;

namespace Vmm.Daemon.Inventory;

/// <summary>VMs that are replicated to other sites. What is kept goes with its VM.</summary>
public sealed class ReplicaTable
{
    /// <summary>Makes the table when it is not there.</summary>
    internal const string Schema = """
        CREATE TABLE IF NOT EXISTS replica (
            vm TEXT PRIMARY KEY NOT NULL REFERENCES vm(id) ON DELETE CASCADE, json TEXT NOT NULL) STRICT;
        """;

    private readonly InventoryDatabase _database;

    internal ReplicaTable(InventoryDatabase database) => _database = database;

    /// <summary>All, by the VM's id. One that this version cannot read is left out.</summary>
    public IReadOnlyDictionary<string, ReplicaSettings> All() => _database.Read("SELECT vm, json FROM replica;", Row)
        .ToDictionary(row => row.Vm, row => row.Settings, StringComparer.Ordinal);

    /// <summary>Writes one, new or not.</summary>
    /// <param name="vm">The VM's id.</param>
    /// <param name="settings">What is kept.</param>
    /// <exception cref="SqliteException">There is no such VM, or the disk is full.</exception>
    public void Save(string vm, ReplicaSettings settings) => _database.Change(
        ["INSERT INTO replica (vm, json) VALUES ($vm, $json) ON CONFLICT (vm) DO UPDATE SET json=excluded.json;"],
        ("$vm", vm),
        ("$json", settings.ToText()));

    /// <summary>Forgets one.</summary>
    public void Remove(string vm) => _database.Change(["DELETE FROM replica WHERE vm=$vm;"], ("$vm", vm));

    private static ReplicaRow? Row(SqliteDataReader row) =>
        ReplicaSettings.Parse(row.GetString(1)) is { } settings ? new ReplicaRow(row.GetString(0), settings) : null;

    private sealed record ReplicaRow(string Vm, ReplicaSettings Settings);
}
