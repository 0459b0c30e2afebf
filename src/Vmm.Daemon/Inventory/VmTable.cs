using Microsoft.Data.Sqlite;
using Vmm.Contracts.Control;
using Vmm.Daemon.Saved;
using Vmm.LifeCycle;

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

    /// <summary>Makes the table of disks that are being copied when it is not there.</summary>
    internal const string CopySchema = """
        CREATE TABLE IF NOT EXISTS disk_copy (
            vm TEXT PRIMARY KEY NOT NULL REFERENCES vm(id) ON DELETE CASCADE, disk TEXT NOT NULL, source TEXT NOT NULL,
            target TEXT NOT NULL) STRICT;
        """;

    /// <summary>
    /// Makes the table of what those disks were before, when it is not there. An earlier release writes none: an entry of another disk does
    /// not count.
    /// </summary>
    internal const string CopyBeforeSchema = """
        CREATE TABLE IF NOT EXISTS disk_copy_before (
            vm TEXT PRIMARY KEY NOT NULL REFERENCES vm(id) ON DELETE CASCADE, json TEXT NOT NULL) STRICT;
        """;

    /// <summary>Makes the table of snapshots that are being taken when it is not there.</summary>
    internal const string SnapshotSchema = """
        CREATE TABLE IF NOT EXISTS disk_snapshot (
            vm TEXT PRIMARY KEY NOT NULL REFERENCES vm(id) ON DELETE CASCADE, json TEXT NOT NULL) STRICT;
        """;

    /// <summary>Makes the table of disks that are being committed when it is not there.</summary>
    internal const string CommitSchema = """
        CREATE TABLE IF NOT EXISTS disk_commit (
            vm TEXT PRIMARY KEY NOT NULL REFERENCES vm(id) ON DELETE CASCADE, json TEXT NOT NULL) STRICT;
        """;

    /// <summary>Makes the table of seeds when it is not there.</summary>
    internal const string SeedSchema = """
        CREATE TABLE IF NOT EXISTS seed (
            vm TEXT PRIMARY KEY NOT NULL REFERENCES vm(id) ON DELETE CASCADE, json TEXT NOT NULL) STRICT;
        """;

    /// <summary>Makes the table of moves that go on when it is not there.</summary>
    internal const string MoveSchema = """
        CREATE TABLE IF NOT EXISTS vm_move (
            vm TEXT PRIMARY KEY NOT NULL REFERENCES vm(id) ON DELETE CASCADE, json TEXT NOT NULL) STRICT;
        """;

    private readonly InventoryDatabase _database;

    internal VmTable(InventoryDatabase database) => _database = database;

    /// <summary>All VMs, by name.</summary>
    public IReadOnlyList<VmRecord> All() => _database.Read(
        """
        SELECT id, name, spec, vm.folder, revision, wanted_on, exit_reason, exit_code, exit_message, saved.folder, saved.whole,
            disk_copy.disk, disk_copy.source, disk_copy.target, disk_snapshot.json, disk_commit.json, disk_copy_before.json,
            seed.json, vm_move.json
        FROM vm LEFT JOIN saved ON saved.vm = vm.id LEFT JOIN disk_copy ON disk_copy.vm = vm.id
            LEFT JOIN disk_copy_before ON disk_copy_before.vm = vm.id LEFT JOIN disk_snapshot ON disk_snapshot.vm = vm.id
            LEFT JOIN disk_commit ON disk_commit.vm = vm.id LEFT JOIN seed ON seed.vm = vm.id
            LEFT JOIN vm_move ON vm_move.vm = vm.id ORDER BY name;
        """,
        Record);

    /// <summary>Adds a VM.</summary>
    /// <exception cref="SqliteException">Id or name is taken, or the disk is full.</exception>
    public void Add(VmRecord vm)
    {
        const string Vm = """
            INSERT INTO vm (id, name, spec, folder, revision, wanted_on, exit_reason, exit_code, exit_message)
            VALUES ($id, $name, $spec, $folder, $revision, $wanted, $reason, $code, $message);
            """;
        if (vm.Move is null)
        {
            Change(vm, Vm);
            return;
        }

        // One that comes from another host is never there without the record that says so.
        Change(vm, Vm, "INSERT INTO vm_move (vm, json) VALUES ($id, $move);");
    }

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
            """,
        vm.Copy is null
            ? "DELETE FROM disk_copy WHERE vm=$id;"
            : """
            INSERT INTO disk_copy (vm, disk, source, target) VALUES ($id, $disk, $source, $target)
            ON CONFLICT(vm) DO UPDATE SET disk=$disk, source=$source, target=$target;
            """,
        vm.Copy?.Before is null
            ? "DELETE FROM disk_copy_before WHERE vm=$id;"
            : "INSERT INTO disk_copy_before (vm, json) VALUES ($id, $before) ON CONFLICT(vm) DO UPDATE SET json=$before;",
        vm.Snapshot is null
            ? "DELETE FROM disk_snapshot WHERE vm=$id;"
            : "INSERT INTO disk_snapshot (vm, json) VALUES ($id, $snapshot) ON CONFLICT(vm) DO UPDATE SET json=$snapshot;",
        vm.Commit is null
            ? "DELETE FROM disk_commit WHERE vm=$id;"
            : "INSERT INTO disk_commit (vm, json) VALUES ($id, $commit) ON CONFLICT(vm) DO UPDATE SET json=$commit;",
        vm.Seed is null
            ? "DELETE FROM seed WHERE vm=$id;"
            : "INSERT INTO seed (vm, json) VALUES ($id, $seed) ON CONFLICT(vm) DO UPDATE SET json=$seed;",
        vm.Move is null
            ? "DELETE FROM vm_move WHERE vm=$id;"
            : "INSERT INTO vm_move (vm, json) VALUES ($id, $move) ON CONFLICT(vm) DO UPDATE SET json=$move;");

    /// <summary>Removes a VM.</summary>
    public void Remove(VmRecord vm) => Change(vm, "DELETE FROM vm WHERE id=$id;");

    private static VmRecord Record(SqliteDataReader row)
    {
        WorkerExit? exit = row.IsDBNull(6) || !Enum.TryParse(row.GetString(6), out ExitReason reason)
            ? null
            : new WorkerExit(reason, row.GetInt32(7), row.IsDBNull(8) ? null : row.GetString(8));
        SavedPlace? saved = row.IsDBNull(9) ? null : new SavedPlace(row.GetString(9), row.GetInt64(10) != 0);
        DiskCopyRecord? copy = row.IsDBNull(11)
            ? null
            : new DiskCopyRecord(row.GetString(11), row.GetString(12), row.GetString(13), row.IsDBNull(16) ? null : row.GetString(16));
        return new VmRecord(
            row.GetString(0), row.GetString(1), row.GetString(2), row.GetString(3), row.GetInt64(4), row.GetInt64(5) != 0, exit, saved,
            copy, row.IsDBNull(14) ? null : SnapshotRecord.Parse(row.GetString(14)),
            row.IsDBNull(15) ? null : DiskCommitRecord.Parse(row.GetString(15)),
            row.IsDBNull(17) ? null : SeedRecord.Parse(row.GetString(17)),
            row.IsDBNull(18) ? null : MoveRecord.Parse(row.GetString(18)));
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
            ("$whole", vm.Saved?.IsWhole == true ? 1 : 0),
            ("$disk", vm.Copy?.Disk),
            ("$source", vm.Copy?.Source),
            ("$target", vm.Copy?.Target),
            ("$before", vm.Copy?.Before),
            ("$snapshot", vm.Snapshot?.ToText()),
            ("$commit", vm.Commit?.ToText()),
            ("$seed", vm.Seed?.ToText()),
            ("$move", vm.Move?.ToText()));
        if (changed != 1)
        {
            throw new InvalidOperationException($"the inventory has no VM {vm.Id}");
        }
    }
}
