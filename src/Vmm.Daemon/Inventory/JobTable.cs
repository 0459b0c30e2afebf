using System.Text.Json;
using Microsoft.Data.Sqlite;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Inventory;

/// <summary>Jobs: each as the JSON that it is outside, too.</summary>
public sealed class JobTable
{
    /// <summary>Makes the table.</summary>
    internal const string Schema = "CREATE TABLE IF NOT EXISTS job (id TEXT PRIMARY KEY NOT NULL, json TEXT NOT NULL) STRICT;";

    private readonly InventoryDatabase _database;

    internal JobTable(InventoryDatabase database) => _database = database;

    /// <summary>All jobs; one that this version cannot read is left out.</summary>
    internal IReadOnlyList<JobInfo> All() => _database.Read("SELECT json FROM job;", Job);

    /// <summary>Writes a job, new or not.</summary>
    internal void Save(JobInfo job) => _database.Change(
        ["INSERT INTO job (id, json) VALUES ($id, $json) ON CONFLICT (id) DO UPDATE SET json=excluded.json;"],
        ("$id", job.Id),
        ("$json", JsonSerializer.Serialize(job, RestJson.Default.JobInfo)));

    /// <summary>Forgets a job.</summary>
    internal void Remove(string id) => _database.Change(["DELETE FROM job WHERE id=$id;"], ("$id", id));

    private static JobInfo? Job(SqliteDataReader row)
    {
        try
        {
            JobInfo? job = JsonSerializer.Deserialize(row.GetString(0), RestJson.Default.JobInfo);
            return job is { Id: not null, Kind: not null, Target: not null } ? job : null;
        }
        catch (JsonException)
        {
            return null; // of another version; a job that is over is no reason to stop
        }
    }
}
