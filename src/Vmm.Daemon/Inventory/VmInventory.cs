using Microsoft.Data.Sqlite;

namespace Vmm.Daemon.Inventory;

/// <summary>
/// What vmmd keeps of this host in one SQLite file: VMs, access tokens, jobs, a class each. Every change is a transaction that is on the
/// disk when the call returns (WAL with synchronous=FULL), so neither a kill of the daemon nor a power cut loses an answered change. Calls
/// may come from any thread; they are short and take turns.
/// </summary>
public sealed class VmInventory : IDisposable
{
    private const int SchemaVersion = 3;

    private readonly InventoryDatabase _database;

    private VmInventory(InventoryDatabase database)
    {
        _database = database;
        (Vms, Tokens, Jobs) = (new VmTable(database), new TokenTable(database), new JobTable(database));
        (Decisions, Replicas) = (new DecisionTable(database), new ReplicaTable(database));
    }

    /// <summary>The VMs.</summary>
    public VmTable Vms { get; }

    /// <summary>Access tokens.</summary>
    public TokenTable Tokens { get; }

    /// <summary>Jobs.</summary>
    public JobTable Jobs { get; }

    /// <summary>What became of VMs that came from other hosts.</summary>
    public DecisionTable Decisions { get; }

    /// <summary>VMs that are replicated to other sites.</summary>
    public ReplicaTable Replicas { get; }

    /// <summary>Opens the file, or makes it.</summary>
    /// <exception cref="InventoryException">Not a database, damaged, or of a newer version.</exception>
    public static VmInventory Open(string path)
    {
        InventoryDatabase database = new(path);
        try
        {
            database.Open();
            if (database.Scalar("PRAGMA quick_check(1);") is not "ok")
            {
                throw new InventoryException($"{path} is damaged: restore it from a backup, or move it away to start with no VMs");
            }

            long version = (long)database.Scalar("PRAGMA user_version;")!;
            if (version > SchemaVersion)
            {
                throw new InventoryException(
                    $"{path} was written by a newer vmmd (schema {version}, this one knows {SchemaVersion}): update vmmd");
            }

            Upgrade(database, version);
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

    /// <inheritdoc/>
    public void Dispose() => _database.Dispose();

    private static void Upgrade(InventoryDatabase database, long version)
    {
        string[] steps = [VmTable.Schema, TokenTable.Schema, JobTable.Schema];
        for (long step = version; step < steps.Length; step++)
        {
            database.Execute($"BEGIN IMMEDIATE; {steps[step]} PRAGMA user_version={step + 1}; COMMIT;");
        }

        database.Execute(VmTable.SavedSchema); // these are of no version of their own: earlier releases pass over the tables
        database.Execute(VmTable.CopySchema);
        database.Execute(VmTable.CopyBeforeSchema);
        database.Execute(VmTable.SnapshotSchema);
        database.Execute(VmTable.CommitSchema);
        database.Execute(VmTable.SeedSchema);
        database.Execute(VmTable.MoveSchema);
        database.Execute(DecisionTable.Schema);
        database.Execute(ReplicaTable.Schema);
    }
}
