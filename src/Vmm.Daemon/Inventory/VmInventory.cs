using Microsoft.Data.Sqlite;
using Vmm.Contracts.Control;
using Vmm.Daemon.Access;
using Vmm.Daemon.Saved;

namespace Vmm.Daemon.Inventory;

/// <summary>
/// The VMs of this host in one SQLite file. Every change is a transaction that is on the disk when the call returns (WAL with
/// synchronous=FULL), so neither a kill of the daemon nor a power cut loses an answered change. Calls may come from any thread; they are
/// short and take turns.
/// </summary>
public sealed partial class VmInventory : IDisposable
{
    private const int SchemaVersion = 3;
    private const string Columns = "id, name, spec, vm.folder, revision, wanted_on, exit_reason, exit_code, exit_message";

    private readonly Lock _gate = new();
    private readonly SqliteConnection _database;

    private VmInventory(SqliteConnection database) => _database = database;

    /// <summary>Opens the file, or makes it.</summary>
    /// <exception cref="InventoryException">Not a database, damaged, or of a newer version.</exception>
    public static VmInventory Open(string path)
    {
        SqliteConnection database = new(new SqliteConnectionStringBuilder { DataSource = path, Pooling = false }.ToString());
        try
        {
            database.Open();
            Execute(database, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;");
            if (Scalar(database, "PRAGMA quick_check(1);") is not "ok")
            {
                throw new InventoryException($"{path} is damaged: restore it from a backup, or move it away to start with no VMs");
            }

            long version = (long)Scalar(database, "PRAGMA user_version;")!;
            if (version > SchemaVersion)
            {
                throw new InventoryException($"{path} was written by a newer vmmd (schema {version}, this one knows {SchemaVersion}): update vmmd");
            }

            if (version == 0)
            {
                Execute(database, $"""
                    BEGIN IMMEDIATE;
                    CREATE TABLE vm (
                        id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, spec TEXT NOT NULL, folder TEXT NOT NULL, revision INTEGER NOT NULL,
                        wanted_on INTEGER NOT NULL, exit_reason TEXT, exit_code INTEGER, exit_message TEXT) STRICT;
                    PRAGMA user_version=1;
                    COMMIT;
                    """);
            }

            if (version < 2)
            {
                Execute(database, """
                    BEGIN IMMEDIATE;
                    CREATE TABLE token (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL, hash BLOB NOT NULL UNIQUE, expires INTEGER NOT NULL) STRICT;
                    PRAGMA user_version=2;
                    COMMIT;
                    """);
            }

            if (version < 3)
            {
                Execute(database, $"BEGIN IMMEDIATE; {JobTable} PRAGMA user_version=3; COMMIT;");
            }

            // A table of its own, which earlier releases pass over: they can still open the file.
            Execute(database, """
                CREATE TABLE IF NOT EXISTS saved (
                    vm TEXT PRIMARY KEY NOT NULL REFERENCES vm(id) ON DELETE CASCADE, folder TEXT NOT NULL, whole INTEGER NOT NULL) STRICT;
                """);
            return new VmInventory(database);
        }
        catch (SqliteException e)
        {
            database.Dispose();
            throw new InventoryException($"{path} cannot be used: {e.Message}", e);
        }
        catch
        {
            database.Dispose();
            throw;
        }
    }

    /// <summary>All VMs, by name.</summary>
    public IReadOnlyList<VmRecord> All()
    {
        lock (_gate)
        {
            using SqliteCommand command = Command($"SELECT {Columns}, saved.folder, saved.whole FROM vm LEFT JOIN saved ON saved.vm = vm.id ORDER BY name;");
            using SqliteDataReader rows = command.ExecuteReader();
            List<VmRecord> records = [];
            while (rows.Read())
            {
                WorkerExit? exit = rows.IsDBNull(6) || !Enum.TryParse(rows.GetString(6), out WorkerExitReason reason)
                    ? null
                    : new WorkerExit(reason, rows.GetInt32(7), rows.IsDBNull(8) ? null : rows.GetString(8));
                SavedPlace? saved = rows.IsDBNull(9) ? null : new SavedPlace(rows.GetString(9), rows.GetInt64(10) != 0);
                records.Add(new VmRecord(rows.GetString(0), rows.GetString(1), rows.GetString(2), rows.GetString(3), rows.GetInt64(4), rows.GetInt64(5) != 0, exit, saved));
            }

            return records;
        }
    }

    /// <summary>Adds a VM.</summary>
    /// <exception cref="SqliteException">Id or name is taken, or the disk is full.</exception>
    public void Add(VmRecord vm) => Change("INSERT INTO vm (id, name, spec, folder, revision, wanted_on, exit_reason, exit_code, exit_message) VALUES ($id, $name, $spec, $folder, $revision, $wanted, $reason, $code, $message);", vm);

    /// <summary>Writes everything of a VM but its id.</summary>
    public void Update(VmRecord vm) => Change("""
        UPDATE vm SET name=$name, spec=$spec, folder=$folder, revision=$revision, wanted_on=$wanted, exit_reason=$reason, exit_code=$code, exit_message=$message
        WHERE id=$id;
        """, vm, SaveOf(vm));

    private static string SaveOf(VmRecord vm) => vm.Saved is null
        ? "DELETE FROM saved WHERE vm=$id;"
        : "INSERT INTO saved (vm, folder, whole) VALUES ($id, $saved, $whole) ON CONFLICT(vm) DO UPDATE SET folder=$saved, whole=$whole;";

    /// <summary>Removes a VM.</summary>
    public void Remove(VmRecord vm) => Change("DELETE FROM vm WHERE id=$id;", vm);

    /// <summary>All access tokens, by name.</summary>
    public IReadOnlyList<TokenRecord> Tokens()
    {
        lock (_gate)
        {
            using SqliteCommand command = Command("SELECT id, name, role, hash, expires FROM token ORDER BY name, id;");
            using SqliteDataReader rows = command.ExecuteReader();
            List<TokenRecord> tokens = [];
            while (rows.Read())
            {
                // A role that this version does not know opens nothing.
                if (Enum.TryParse(rows.GetString(2), out Role role))
                {
                    tokens.Add(new TokenRecord(rows.GetString(0), rows.GetString(1), role, (byte[])rows[3], DateTimeOffset.FromUnixTimeSeconds(rows.GetInt64(4))));
                }
            }

            return tokens;
        }
    }

    /// <summary>Adds an access token.</summary>
    public void Add(TokenRecord token)
    {
        lock (_gate)
        {
            using SqliteCommand command = Command("INSERT INTO token (id, name, role, hash, expires) VALUES ($id, $name, $role, $hash, $expires);");
            command.Parameters.AddWithValue("$id", token.Id);
            command.Parameters.AddWithValue("$name", token.Name);
            command.Parameters.AddWithValue("$role", token.Role.ToString());
            command.Parameters.AddWithValue("$hash", token.Hash);
            command.Parameters.AddWithValue("$expires", token.Expires.ToUnixTimeSeconds());
            command.ExecuteNonQuery();
        }
    }

    /// <summary>Removes an access token; false when there is none of this id.</summary>
    public bool RemoveToken(string id)
    {
        lock (_gate)
        {
            using SqliteCommand command = Command("DELETE FROM token WHERE id=$id;");
            command.Parameters.AddWithValue("$id", id);
            return command.ExecuteNonQuery() == 1;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _database.Dispose();

    private void Change(string sql, VmRecord vm, string? andThen = null)
    {
        lock (_gate)
        {
            using SqliteTransaction both = _database.BeginTransaction();
            using SqliteCommand command = Command(sql);
            command.Transaction = both;
            command.Parameters.AddWithValue("$id", vm.Id);
            command.Parameters.AddWithValue("$name", vm.Name);
            command.Parameters.AddWithValue("$spec", vm.Spec);
            command.Parameters.AddWithValue("$folder", vm.Folder);
            command.Parameters.AddWithValue("$revision", vm.Revision);
            command.Parameters.AddWithValue("$wanted", vm.WantedOn ? 1 : 0);
            command.Parameters.AddWithValue("$reason", (object?)vm.LastExit?.Reason.ToString() ?? DBNull.Value);
            command.Parameters.AddWithValue("$code", (object?)vm.LastExit?.ExitCode ?? DBNull.Value);
            command.Parameters.AddWithValue("$message", (object?)vm.LastExit?.Message ?? DBNull.Value);
            if (command.ExecuteNonQuery() != 1)
            {
                throw new InvalidOperationException($"the inventory has no VM {vm.Id}");
            }

            if (andThen is not null)
            {
                command.CommandText = andThen;
                command.Parameters.AddWithValue("$saved", (object?)vm.Saved?.Folder ?? DBNull.Value);
                command.Parameters.AddWithValue("$whole", vm.Saved?.IsWhole == true ? 1 : 0);
                command.ExecuteNonQuery();
            }

            both.Commit();
        }
    }

#pragma warning disable CA2100 // Every text is a constant of this file.
    private SqliteCommand Command(string sql) => new(sql, _database);

    private static void Execute(SqliteConnection database, string sql)
    {
        using SqliteCommand command = new(sql, database);
        command.ExecuteNonQuery();
    }

    private static object? Scalar(SqliteConnection database, string sql)
    {
        using SqliteCommand command = new(sql, database);
        return command.ExecuteScalar();
    }
#pragma warning restore CA2100
}
