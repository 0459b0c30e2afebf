using Microsoft.Data.Sqlite;
using Vmm.Contracts.Control;
using Vmm.Daemon.Saved;

namespace Vmm.Daemon.Inventory;

/// <summary>The VMs of this host, and where they are saved.</summary>
public sealed class VmTable
{
    /// <summary>Makes the table.</summary>
    internal const string Schema = """
        CREATE TABLE vm (
            id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, spec TEXT NOT NULL, folder TEXT NOT NULL, revision INTEGER NOT NULL,
            wanted_on INTEGER NOT NULL, exit_reason TEXT, exit_code INTEGER, exit_message TEXT) STRICT;
        """;

    /// <summary>Makes the table of saved VMs when it is not there.</summary>
    internal const string SavedSchema = """
        CREATE TABLE IF NOT EXISTS saved (
            vm TEXT PRIMARY KEY NOT NULL REFERENCES vm(id) ON DELETE CASCADE, folder TEXT NOT NULL, whole INTEGER NOT NULL) STRICT;
        """;

    private readonly InventoryDatabase _database;

    internal VmTable(InventoryDatabase database) => _database = database;

    /// <summary>All VMs, by name.</summary>
    public IReadOnlyList<VmRecord> All() => _database.Read(
        """
        SELECT id, name, spec, vm.folder, revision, wanted_on, exit_reason, exit_code, exit_message, saved.folder, saved.whole
        FROM vm LEFT JOIN saved ON saved.vm = vm.id ORDER BY name;
        """,
        Record);

    /// <summary>Adds a VM.</summary>
    /// <exception cref="SqliteException">Id or name is taken, or the disk is full.</exception>
    public void Add(VmRecord vm) => Change(vm, """
        INSERT INTO vm (id, name, spec, folder, revision, wanted_on, exit_reason, exit_code, exit_message)
        VALUES ($id, $name, $spec, $folder, $revision, $wanted, $reason, $code, $message);
        """);

    /// <summary>Writes everything of a VM but its id.</summary>
    public void Update(VmRecord vm) => Change(
        vm,
        """
        UPDATE vm SET name=$name, spec=$spec, folder=$folder, revision=$revision, wanted_on=$wanted,
            exit_reason=$reason, exit_code=$code, exit_message=$message
        WHERE id=$id;
        """,
        vm.Saved is null
            ? "DELETE FROM saved WHERE vm=$id;"
            : """
            INSERT INTO saved (vm, folder, whole) VALUES ($id, $saved, $whole)
            ON CONFLICT(vm) DO UPDATE SET folder=$saved, whole=$whole;
            """);

    /// <summary>Removes a VM.</summary>
    public void Remove(VmRecord vm) => Change(vm, "DELETE FROM vm WHERE id=$id;");

    private static VmRecord Record(SqliteDataReader row)
    {
        WorkerExit? exit = row.IsDBNull(6) || !Enum.TryParse(row.GetString(6), out WorkerExitReason reason)
            ? null
            : new WorkerExit(reason, row.GetInt32(7), row.IsDBNull(8) ? null : row.GetString(8));
        SavedPlace? saved = row.IsDBNull(9) ? null : new SavedPlace(row.GetString(9), row.GetInt64(10) != 0);
        return new VmRecord(
            row.GetString(0), row.GetString(1), row.GetString(2), row.GetString(3), row.GetInt64(4), row.GetInt64(5) != 0, exit, saved);
    }

    private void Change(VmRecord vm, params ReadOnlySpan<string> statements)
    {
        int changed = _database.Change(
            statements,
            ("$id", vm.Id),
            ("$name", vm.Name),
            ("$spec", vm.Spec),
            ("$folder", vm.Folder),
            ("$revision", vm.Revision),
            ("$wanted", vm.WantedOn ? 1 : 0),
            ("$reason", vm.LastExit?.Reason.ToString()),
            ("$code", vm.LastExit?.ExitCode),
            ("$message", vm.LastExit?.Message),
            ("$saved", vm.Saved?.Folder),
            ("$whole", vm.Saved?.IsWhole == true ? 1 : 0));
        if (changed != 1)
        {
            throw new InvalidOperationException($"the inventory has no VM {vm.Id}");
        }
    }
}
